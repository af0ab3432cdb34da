// Command archive packs one program into a container image that `ctr images import` understands.
//
//	archive IMAGE[,IMAGE...] PROGRAM OUTPUT.tar [LIBRARY...]
//
// The image has one layer: /NAME, which is also its entry point, and each library at its own absolute path, for a
// program that is not static. It is imported under each of the image names. Equal input gives equal bytes.
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
	"strings"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: archive IMAGE[,IMAGE...] PROGRAM OUTPUT.tar [LIBRARY...]")
		os.Exit(2)
	}
	images := strings.Split(os.Args[1], ",")
	if err := write(images, os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintf(os.Stderr, "archive: %v\n", err)
		os.Exit(1)
	}
}

func write(images []string, program, output string, libraries []string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	name := filepath.Base(program)

	files := []file{{name, 0o755, binary}}
	for _, library := range libraries {
		content, err := os.ReadFile(library)
		if err != nil {
			return err
		}
		files = append(files, file{strings.TrimPrefix(library, "/"), 0o755, content})
	}
	layer, err := pack(files...)
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
		"Config": configName, "RepoTags": images, "Layers": []string{diffID + ".tar"},
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
