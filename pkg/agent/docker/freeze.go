package docker

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/agent/wire"
	"github.com/innerdock/innerdock/pkg/agent/wiring"
)

// Freeze prepares for a checkpoint. From now on calls of the Docker API wait for
// the next Start, which brings the networks back that a restore has lost, and
// goes on with the daemons and containers that run. Where dockerd is not ready
// there is nothing to prepare: it is started anew.
func (s *Supervisor) Freeze(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	report := s.Report()
	if report.State != innerdock.DockerReady {
		return nil
	}
	s.front.CloseIdle()
	if fronted(report.Profile) && s.cfg.Root == "" {
		picture, err := wiring.Take(s.rulesFor)
		if err != nil {
			return innerdock.Internal(err, "looking at the sandbox's networks")
		}
		s.frozen = picture
	} else {
		s.frozen = new(wiring.Picture)
	}
	s.unwatch()
	report.State, report.Reason = innerdock.DockerStarting, ""
	s.set(report)
	return nil
}

// thaw goes on after a checkpoint: in the same sandbox, or in one that was
// restored from it and has another address.
func (s *Supervisor) thaw(ctx context.Context, req wire.DockerStart) (version string, err error) {
	defer s.forget()
	report := s.Report()
	if !alive(s.dockerd) || report.Profile != req.Profile {
		return "", fmt.Errorf("dockerd does not run in profile %s", req.Profile)
	}
	if s.cfg.Root == "" {
		if err := s.rewire(req); err != nil {
			return "", err
		}
	}
	report.State = innerdock.DockerReady
	s.set(report)
	s.keep(ctx, req)
	return report.Version, nil
}

// rewire brings back what the kernel has lost.
func (s *Supervisor) rewire(req wire.DockerStart) error {
	if !fronted(req.Profile) {
		return nil
	}
	address, err := netip.ParseAddr(req.Address)
	if err != nil {
		return err
	}
	if err := forward(); err != nil {
		return err
	}
	if err := s.frozen.Restore(address); err != nil {
		return fmt.Errorf("bringing the networks back: %w", err)
	}
	s.rulesFor = address
	return nil
}

// forget drops the picture of the networks.
func (s *Supervisor) forget() {
	if s.frozen == nil {
		return
	}
	if err := s.frozen.Close(); err != nil {
		s.cfg.Log.Warn("closing network namespaces", "error", err)
	}
	s.frozen = nil
}
