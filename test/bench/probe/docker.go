package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// sent is the size of what Docker is sent.
const sent = 200 << 20

// dockerTimes are in seconds.
type dockerTimes struct {
	Context float64 // to give the builder a build context
	Copy    float64 // to put as much into a container
}

// measureDocker sends Docker what is large, by its socket.
func measureDocker(socket string) error {
	d := &dockerAPI{&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}}
	var times dockerTimes
	began := time.Now()
	if err := d.call(http.MethodPost, "/build?version=1&t=probe-context", archive("Dockerfile", []byte("FROM scratch\nLABEL probe=context\nCMD [\"none\"]\n")), nil); err != nil {
		return err
	}
	times.Context = time.Since(began).Seconds()
	var container struct{ ID string }
	if err := d.call(http.MethodPost, "/containers/create", bytes.NewReader([]byte(`{"Image":"probe-context"}`)), &container); err != nil {
		return err
	}
	began = time.Now()
	if err := d.call(http.MethodPut, "/containers/"+container.ID+"/archive?path=/", archive("", nil), nil); err != nil {
		return err
	}
	times.Copy = time.Since(began).Seconds()
	err := errors.Join(d.call(http.MethodDelete, "/containers/"+container.ID, nil, nil), d.call(http.MethodDelete, "/images/probe-context", nil, nil))
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(times))
}

type dockerAPI struct{ client *http.Client }

// call makes a request that must succeed. A body that is an archive is sent in
// chunks, as docker does.
func (d *dockerAPI) call(method, path string, body io.Reader, into any) error {
	request, err := http.NewRequest(method, "http://docker"+path, body)
	if err != nil {
		return err
	}
	kind := "application/json"
	if _, stream := body.(*io.PipeReader); stream {
		kind = "application/x-tar"
	}
	request.Header.Set("Content-Type", kind)
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 || bytes.Contains(said, []byte(`"errorDetail"`)) {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, said)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(said, into)
}

// archive is a tar of what is large and perhaps one more file.
func archive(name string, content []byte) io.Reader {
	from, to := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(to, 32<<10)
		out := tar.NewWriter(buffered)
		err := errors.Join(add(out, "large", sent, zeros{}))
		if name != "" {
			err = errors.Join(err, add(out, name, int64(len(content)), bytes.NewReader(content)))
		}
		to.CloseWithError(errors.Join(err, out.Close(), buffered.Flush()))
	}()
	return from
}

func add(out *tar.Writer, name string, size int64, content io.Reader) error {
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.CopyN(out, content, size)
	return err
}

// zeros are cheap to make, and nothing on the way takes them for less.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
