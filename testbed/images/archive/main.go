// Command archive packs one static program into a container image that `ctr images import` understands.
//
//	archive IMAGE PROGRAM OUTPUT.tar
//
// The image has one layer with one file, /NAME, which is also its entry point. Equal input gives equal bytes.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: archive IMAGE PROGRAM OUTPUT.tar")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "archive: %v\n", err)
		os.Exit(1)
	}
}

func write(image, program, output string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	name := filepath.Base(program)

	layer, err := pack(file{name, 0o755, binary})
	if err != nil {
		return err
	}
	digest := sha256.Sum256(layer)
	diffID := hex.EncodeToString(digest[:])

	// https://github.com/opencontainers/image-spec/blob/main/config.md
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/" + name}, "WorkingDir": "/"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diffID}},
	})
	if err != nil {
		return err
	}
	digest = sha256.Sum256(config)
	configName := hex.EncodeToString(digest[:]) + ".json"

	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{image}, "Layers": []string{diffID + ".tar"},
	}})
	if err != nil {
		return err
	}
	archive, err := pack(
		file{diffID + ".tar", 0o644, layer}, file{configName, 0o644, config}, file{"manifest.json", 0o644, manifest},
	)
	if err != nil {
		return err
	}
	return os.WriteFile(output, archive, 0o644)
}

type file struct {
	name    string
	mode    int64
	content []byte
}

func pack(files ...file) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, it := range files {
		header := &tar.Header{Name: it.name, Mode: it.mode, Size: int64(len(it.content)), Format: tar.FormatUSTAR}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(it.content); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}
