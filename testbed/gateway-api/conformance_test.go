// Package conformance is the official suite as a program: `go test -c` makes it, `make conformance` runs it.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

// TestConformance runs what the command line asks for; see the suite's own flags.
func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
