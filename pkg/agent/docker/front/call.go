package front

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/innerdock/innerdock"
)

// maxBody caps what is read of a call that is looked into, and of its answer.
const maxBody = 8 << 20

// bulkSize is where a body is much.
const bulkSize = 1 << 20

// call is a request of the Docker API: its method and path, less the version.
type call struct {
	method string
	path   []string
}

func callOf(r *http.Request) call {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if version := path[0]; len(version) > 1 && version[0] == 'v' && version[1] >= '0' && version[1] <= '9' {
		path = path[1:]
	}
	return call{r.Method, path}
}

// is reports whether the call is a POST to the path; "*" is any one element.
func (c call) is(path ...string) bool {
	if c.method != http.MethodPost || len(c.path) != len(path) {
		return false
	}
	for i, element := range path {
		if element != "*" && element != c.path[i] {
			return false
		}
	}
	return true
}

// hijacks reports whether the connection may belong to its ends after the call.
func (c call) hijacks(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || c.is("containers", "*", "attach") || c.is("exec", "*", "start") ||
		c.is("session") || c.is("grpc")
}

// bulk reports whether the call or its answer is so much that the bytes had
// better pass without a look.
func (c call) bulk(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) {
		return false
	}
	if r.ContentLength > bulkSize || r.ContentLength < 0 {
		return true
	}
	if len(c.path) < 2 {
		return false
	}
	kind, what := c.path[0], c.path[len(c.path)-1]
	return c.method == http.MethodGet && (kind == "images" && what == "get" || kind == "containers" && (what == "export" || what == "archive"))
}

// look refuses what cannot work and notes what wants a warning. What it read of
// the request, it gives back in the one that it returns.
func (c call) look(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	switch {
	case c.is("containers", "*", "pause"), c.is("containers", "*", "unpause"):
		return nil, refused("docker %s does not work in a sandbox: gVisor has no freezer; use docker stop and docker start, or docker kill --signal STOP and --signal CONT",
			c.path[2])
	case c.is("containers", "*", "checkpoints"), c.is("containers", "*", "start") && r.URL.Query().Get("checkpoint") != "":
		return nil, refused("docker checkpoint does not work in a sandbox: CRIU needs a Linux kernel, and this one is gVisor's; use docker commit to keep a container's files")
	case c.is("networks", "create"):
		return inspect(w, r, network.check)
	case c.is("containers", "create"):
		return inspect(w, r, func(body struct{ HostConfig resources }) (amendment, error) { return body.HostConfig.check() })
	case c.is("containers", "*", "update"):
		return inspect(w, r, resources.check)
	}
	return r, nil
}

// amendment is what is done to the answer of a call that succeeded.
type amendment struct {
	warnings []string // to be added
	walls    bool     // those of networks are to be seen to
}

type amendmentKey struct{}

func refused(format string, args ...any) error {
	return innerdock.Errorf(innerdock.CodeUnsupported, format, args...)
}

// network is what networks/create is asked for.
type network struct {
	Driver     string
	EnableIPv6 *bool
	Internal   bool
	Options    map[string]string
}

func (n network) check() (amendment, error) {
	switch n.Driver {
	case "macvlan", "ipvlan":
		return amendment{}, refused("networks of driver %s do not work in a sandbox: gVisor has no such device; use the driver bridge", n.Driver)
	}
	if n.EnableIPv6 != nil && *n.EnableIPv6 {
		return amendment{}, refused("IPv6 networks do not work in a sandbox: gVisor has not the switches by which Docker sets them up; leave out --ipv6 (in Compose, enable_ipv6)")
	}
	if icc, err := strconv.ParseBool(n.Options["com.docker.network.bridge.enable_icc"]); err == nil && !icc {
		return amendment{}, refused("a network cannot keep its containers apart (enable_icc=false) in a sandbox: gVisor filters nothing within a bridge; give each container a network of its own")
	}
	// A bridge of a given name may have been an internal network's before.
	return amendment{walls: n.Internal || n.Options["com.docker.network.bridge.name"] != ""}, nil
}

// resources are the limits of a container that gVisor does not enforce.
type resources struct {
	NanoCpus, CPUQuota, CPUShares, CPURealtimeRuntime int64
	CpusetCpus, CpusetMems                            string
}

func (r resources) check() (amendment, error) {
	var named []string
	for _, option := range []struct {
		name string
		set  bool
	}{
		{"--cpus", r.NanoCpus > 0}, {"--cpu-quota", r.CPUQuota > 0}, {"--cpu-shares", r.CPUShares > 0},
		{"--cpu-rt-runtime", r.CPURealtimeRuntime > 0},
		{"--cpuset-cpus", r.CpusetCpus != ""}, {"--cpuset-mems", r.CpusetMems != ""},
	} {
		if option.set {
			named = append(named, option.name)
		}
	}
	if named == nil {
		return amendment{}, nil
	}
	return amendment{warnings: []string{"Your kernel, gVisor's, does not enforce " + strings.Join(named, ", ") +
		". Recorded, without effect; the sandbox's own cpu limit holds."}}, nil
}

// inspect decodes the body of a call and has check look at it. A body that is
// not what it should be passes: the daemon says what is wrong with it.
func inspect[T any](w http.ResponseWriter, r *http.Request, check func(T) (amendment, error)) (*http.Request, error) {
	body, err := readAll(w, r)
	if err != nil {
		return nil, err
	}
	r.Header.Del("Expect")
	r.Body, r.ContentLength, r.TransferEncoding = bodyOf(body), int64(len(body)), nil
	var content T
	if json.Unmarshal(body, &content) != nil {
		return r, nil
	}
	todo, err := check(content)
	if err != nil {
		return nil, err
	}
	return r.WithContext(context.WithValue(r.Context(), amendmentKey{}, todo)), nil
}

// amend does what the request's context has for its answer.
func (f *Front) amend(resp *http.Response) error {
	todo, _ := resp.Request.Context().Value(amendmentKey{}).(amendment)
	if resp.StatusCode/100 != 2 {
		return nil
	}
	if todo.walls {
		if err := f.cfg.NetworksChanged(resp.Request.Context()); err != nil {
			return innerdock.Errorf(innerdock.CodeUnavailable, "the network was made, but not its walls: %w; remove it and try again", err)
		}
	}
	if todo.warnings == nil {
		return nil
	}
	return addWarnings(resp, todo.warnings)
}

// addWarnings adds to the list of warnings in the daemon's answer, which clients
// show.
func addWarnings(resp *http.Response, warnings []string) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	rest := resp.Body
	var answer map[string]json.RawMessage
	var theirs []string
	if json.Unmarshal(body, &answer) != nil || answer == nil || json.Unmarshal(orNull(answer["Warnings"]), &theirs) != nil {
		resp.Body = struct { // as it came
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), rest), rest}
		return nil
	}
	answer["Warnings"], _ = json.Marshal(append(theirs, warnings...)) // of strings: cannot fail
	body, err = json.Marshal(answer)
	if err != nil {
		return err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), rest}
	resp.ContentLength = int64(len(body))
	resp.TransferEncoding = nil
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}
