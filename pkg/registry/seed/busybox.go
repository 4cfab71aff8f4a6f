package seed

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/child"
)

// Busybox is the image busybox: Debian's static busybox with a link for each of
// its commands. It is kept in cacheDir; making it the first time takes a few
// seconds and needs root.
func Busybox(ctx context.Context, cacheDir string, progress func(string)) (v1.Image, error) {
	return cached(cacheDir, "busybox", []string{suite, "recipe 1"}, func(work string) (v1.Image, error) {
		progress("making busybox:latest from Debian's busybox-static")
		archive := filepath.Join(work, "packages.tar")
		if err := fromPackages(ctx, work, archive, "--variant=extract", "--include=busybox-static"); err != nil {
			return nil, err
		}
		binary, err := busyboxBinary(archive)
		if err != nil {
			return nil, innerdock.Internal(err, "taking busybox out of its package")
		}
		commands, err := busyboxCommands(ctx, work, binary)
		if err != nil {
			return nil, innerdock.Internal(err, "asking busybox for its commands")
		}
		layer, err := newLayer(busyboxFiles(binary, commands))
		if err != nil {
			return nil, innerdock.Internal(err, "making the busybox image")
		}
		return newImage(v1.Config{Cmd: []string{"sh"}, Env: []string{defaultPath}, WorkingDir: "/"}, layer)
	})
}

func busyboxBinary(archive string) ([]byte, error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	for tr := tar.NewReader(file); ; {
		header, err := tr.Next()
		if err != nil {
			return nil, err
		}
		if filepath.Base(header.Name) == "busybox" && header.Typeflag == tar.TypeReg && header.Mode&0o111 != 0 {
			return io.ReadAll(tr)
		}
	}
}

func busyboxCommands(ctx context.Context, work string, binary []byte) ([]string, error) {
	path := filepath.Join(work, "busybox")
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		return nil, err
	}
	list, err := child.Output(ctx, exec.Command(path, "--list"))
	return strings.Fields(list), err
}

func busyboxFiles(binary []byte, commands []string) []entry {
	files := []entry{{name: "bin/", mode: 0o755}, {name: "bin/busybox", mode: 0o755, content: binary}}
	for _, command := range commands {
		if command != "busybox" {
			files = append(files, entry{name: "bin/" + command, link: "busybox"})
		}
	}
	return append(files,
		entry{name: "etc/", mode: 0o755},
		entry{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		entry{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\nnogroup:x:65534:\n")},
		entry{name: "home/", mode: 0o755},
		entry{name: "root/", mode: 0o700},
		entry{name: "tmp/", mode: 0o1777},
		entry{name: "usr/", mode: 0o755},
		entry{name: "usr/bin/", mode: 0o755},
		entry{name: "usr/bin/env", link: "../../bin/busybox"},
		entry{name: "var/", mode: 0o755},
		entry{name: "var/spool/", mode: 0o755},
	)
}
