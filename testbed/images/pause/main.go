// Command pause holds a pod's namespaces open: it sleeps until it is told to stop and reaps orphans, as the first
// process of a process namespace must.
//
// The test bed also runs it as the first process of each node.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	for {
		for {
			// Reap before waiting: a child may have ended before its signal could be noted.
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
		if <-signals != syscall.SIGCHLD {
			return
		}
	}
}
