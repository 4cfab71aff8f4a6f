package worker

import (
	"context"
	"maps"
	"net/netip"
	"path"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/network"
	"github.com/innerdock/innerdock/pkg/store"
)

// What a request leaves out, and its bounds.
const (
	defaultCPU     = 1.0
	minCPU         = 0.1
	defaultMemory  = "1Gi"
	minMemory      = 64 << 20
	defaultDisk    = "10Gi"
	minDisk        = 64 << 20
	defaultTimeout = 30.0 // seconds for dockerd
	maxTimeout     = 600.0
	maxEnv         = 128 << 10 // bytes of the whole environment
)

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// plan checks a request and turns it into the record that will be stored.
func (w *Worker) plan(ctx context.Context, tenant string, spec innerdock.SandboxSpec) (*store.Record, error) {
	if spec.GPU != "" {
		return nil, innerdock.Errorf(innerdock.CodeUnsupported,
			"gpu: this server offers no GPU; leave gpu out")
	}
	if spec.Name != "" && !validName.MatchString(spec.Name) {
		return nil, innerdock.Errorf(innerdock.CodeInvalid,
			"name: %q is not a name; use up to 63 lower-case letters, digits and dashes", spec.Name)
	}
	rec := &store.Record{Tenant: tenant, Spec: spec}
	rec.ID, rec.RequestID = newID(w.Prefix), innerdock.RequestID(ctx)
	rec.Name, rec.State, rec.CreatedAt = spec.Name, innerdock.StateCreating, time.Now().UTC()
	rec.Timings = map[string]float64{}
	if err := planResources(rec, spec); err != nil {
		return nil, err
	}
	if err := planAutoPause(spec.AutoPause); err != nil {
		return nil, err
	}
	if spec.Snapshot != "" {
		return rec, w.planSnapshot(ctx, rec)
	}
	if err := planDocker(rec, spec.Docker); err != nil {
		return nil, err
	}
	if _, err := policyOf(spec.Network); err != nil {
		return nil, err
	}
	image, err := w.images.Get(ctx, spec.Image)
	if err != nil {
		return nil, err
	}
	begin(rec, image)
	maps.Copy(rec.Env, spec.Env)
	return rec, checkEnv(rec.Env)
}

// begin lets processes begin as the image says. An image that says / says nothing.
func begin(rec *store.Record, image innerdock.Image) {
	rec.Image, rec.User = image.ID, image.User
	if dir := path.Clean("/" + image.WorkingDir); dir != "/" {
		rec.Dir = dir
	}
	rec.Env = maps.Clone(image.Env)
	if rec.Env == nil {
		rec.Env = map[string]string{}
	}
}

func planResources(rec *store.Record, spec innerdock.SandboxSpec) error {
	rec.CPU = spec.CPU
	if rec.CPU == 0 {
		rec.CPU = min(defaultCPU, maxCPU())
	}
	if !(rec.CPU >= minCPU && rec.CPU <= maxCPU()) {
		return innerdock.Errorf(innerdock.CodeInvalid,
			"cpu: %g is not between %g and the %d cores of this machine", spec.CPU, minCPU, int(maxCPU()))
	}
	var err error
	if rec.Memory, err = size("memory", spec.Memory, defaultMemory, minMemory, totalMemory()); err != nil {
		return err
	}
	rec.Disk, err = size("disk", spec.Disk, defaultDisk, minDisk, 1<<50)
	return err
}

func size(field, text, otherwise string, least, most int64) (int64, error) {
	if text == "" {
		text = otherwise
	}
	bytes, err := innerdock.ParseQuantity(field, text)
	if err != nil {
		return 0, err
	}
	if bytes < least || bytes > most {
		return 0, innerdock.Errorf(innerdock.CodeInvalid, "%s: %s is not between %d MiB and the %d MiB that this machine can give",
			field, text, least>>20, most>>20)
	}
	return bytes, nil
}

func totalMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 1 << 50 // no bound is better than refusing everything
	}
	return int64(info.Totalram) * int64(info.Unit)
}

func planDocker(rec *store.Record, spec innerdock.DockerSpec) error {
	rec.Docker = innerdock.DockerStatus{State: innerdock.DockerDisabled}
	if !spec.Enabled {
		return nil
	}
	profile := spec.Profile
	if profile == "" {
		profile = innerdock.ProfileFull
	}
	if profile != innerdock.ProfileFull && profile != innerdock.ProfileMinimal {
		return innerdock.Errorf(innerdock.CodeInvalid, "docker.profile: %q is neither full nor minimal", profile)
	}
	timeout := spec.ReadyTimeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	if !(timeout > 0 && timeout <= maxTimeout) {
		return innerdock.Errorf(innerdock.CodeInvalid,
			"docker.ready_timeout: %g is not between 0 and %g seconds", timeout, maxTimeout)
	}
	rec.Spec.Docker.ReadyTimeout = timeout
	rec.Docker = innerdock.DockerStatus{State: innerdock.DockerStarting, Profile: profile}
	return nil
}

// policyOf reads what a sandbox may reach.
func policyOf(spec innerdock.NetworkSpec) (network.Policy, error) {
	policy := network.Policy{Block: spec.Block}
	for _, cidr := range spec.Allow {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil || !prefix.Addr().Is4() {
			return network.Policy{}, innerdock.Errorf(innerdock.CodeInvalid,
				"network.allow: %q is not an IPv4 CIDR such as 10.1.0.0/16", cidr)
		}
		policy.Allow = append(policy.Allow, prefix.Masked())
	}
	return policy, nil
}

func checkEnv(env map[string]string) error {
	total := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(env[name], "\x00") {
			return innerdock.Errorf(innerdock.CodeInvalid, "env: %q cannot be a variable of the environment", name)
		}
		total += len(name) + len(env[name]) + 2
	}
	if total > maxEnv {
		return innerdock.Errorf(innerdock.CodeTooLarge, "env: %d bytes are more than the %d that are allowed", total, maxEnv)
	}
	return nil
}

// maxCPU is how many cores this machine has.
func maxCPU() float64 { return float64(goruntime.NumCPU()) }
