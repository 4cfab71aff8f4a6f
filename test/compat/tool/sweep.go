package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// daemon speaks to dockerd without a docker process for each word.
var daemon = http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "/run/docker.sock")
	},
}}

func sweep(args []string) error {
	var prefix string
	if err := arguments(args, &prefix); err != nil {
		return err
	}
	var containers []struct {
		ID    string
		Names []string
	}
	var networks []struct{ Name string }
	var volumes struct{ Volumes []struct{ Name string } }
	var images []struct{ RepoTags []string }
	if err := list("/containers/json?all=1", &containers); err != nil {
		return err
	}
	var failures error
	for _, c := range containers {
		if named(c.Names, "/"+prefix) {
			failures = errors.Join(failures, remove("/containers/"+c.ID+"?force=1&v=1"))
		}
	}
	if err := errors.Join(failures, list("/networks", &networks), list("/volumes", &volumes), list("/images/json", &images)); err != nil {
		return err
	}
	for _, n := range networks {
		if named([]string{n.Name}, prefix) {
			failures = errors.Join(failures, remove("/networks/"+n.Name))
		}
	}
	for _, v := range volumes.Volumes {
		if named([]string{v.Name}, prefix) {
			failures = errors.Join(failures, remove("/volumes/"+v.Name+"?force=1"))
		}
	}
	for _, image := range images {
		for _, tag := range image.RepoTags {
			if _, name, _ := strings.Cut("/"+tag, "/"); named([]string{name}, prefix) || strings.Contains(tag, "/"+prefix) {
				failures = errors.Join(failures, remove("/images/"+url.PathEscape(tag)+"?force=1"))
			}
		}
	}
	return failures
}

// named reports whether one of the names begins with the prefix.
func named(names []string, prefix string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func list(path string, to any) error {
	response, err := daemon.Get("http://docker" + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(to)
}

// remove removes what may be gone by now.
func remove(path string) error {
	request, err := http.NewRequest(http.MethodDelete, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	response, err := daemon.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if response.StatusCode < 300 || response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusConflict && strings.Contains(string(body), "already in progress") {
		return nil
	}
	return fmt.Errorf("removing %s: %s: %s", path, response.Status, body)
}
