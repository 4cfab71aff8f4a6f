package server

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/innerdock/innerdock"
)

type sandboxList struct {
	Sandboxes []innerdock.Sandbox `json:"sandboxes" nullable:"false"`
}

func (s *Server) addSandboxes() {
	tags := []string{"sandboxes"}
	handle(s, huma.Operation{
		OperationID: "createSandbox", Method: http.MethodPost, Path: "/v1/sandboxes", Tags: tags,
		Summary: "Create a sandbox", DefaultStatus: http.StatusCreated,
		Description: "Answers when the sandbox runs: its agent answers. Docker may still be starting.",
	}, s.createSandbox)
	handle(s, huma.Operation{
		OperationID: "listSandboxes", Method: http.MethodGet, Path: "/v1/sandboxes", Tags: tags,
		Summary: "List sandboxes",
	}, s.listSandboxes)
	handle(s, huma.Operation{
		OperationID: "getSandbox", Method: http.MethodGet, Path: "/v1/sandboxes/{id}", Tags: tags,
		Summary: "Get a sandbox",
	}, func(ctx context.Context, who principal, in *byID) (*bodyOf[innerdock.Sandbox], error) {
		sandbox, err := s.backend.Sandbox(ctx, who.Tenant, in.ID)
		return &bodyOf[innerdock.Sandbox]{sandbox}, err
	})
	handle(s, huma.Operation{
		OperationID: "terminateSandbox", Method: http.MethodDelete, Path: "/v1/sandboxes/{id}", Tags: tags,
		Summary: "Terminate a sandbox", Description: "Its processes and containers get SIGTERM, and what is left after the grace is killed. One that has ended already is answered as it is.",
	}, s.terminateSandbox)
	handle(s, huma.Operation{
		OperationID: "pauseSandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/pause", Tags: tags,
		Summary: "Pause a sandbox", Description: "Its processes and containers stand still, take no CPU and keep their memory. " +
			"What needs the sandbox itself is refused with the code conflict until it is resumed; what was under way goes on then. One that is paused stays so. " +
			"With persist, its memory goes to the disk, and connections to it end.",
	}, s.pauseSandbox)
	handle(s, huma.Operation{
		OperationID: "resumeSandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/resume", Tags: tags,
		Summary: "Let a paused sandbox go on", Description: "One that runs is answered as it is.",
	}, func(ctx context.Context, who principal, in *byID) (*bodyOf[innerdock.Sandbox], error) {
		sandbox, err := s.backend.Resume(ctx, who.Tenant, in.ID)
		return &bodyOf[innerdock.Sandbox]{sandbox}, err
	})
	handle(s, huma.Operation{
		OperationID: "waitSandbox", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/wait", Tags: tags,
		Summary: "Wait for a sandbox to end", Description: "Answers when it has ended, or at the timeout with its state by then.",
	}, s.waitSandbox)
	handle(s, huma.Operation{
		OperationID: "getDocker", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/docker", Tags: tags,
		Summary: "Get the state of Docker, or wait for it",
		Description: "With wait, answers when Docker is ready, has failed or is disabled, or at the timeout. " +
			"A failed Docker is no error here: the status has its code and reason.",
	}, s.getDocker)
	s.handleRaw(huma.Operation{
		OperationID: "getSandboxLog", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/logs", Tags: tags,
		Summary: "Get the log of a sandbox's start and life", Parameters: s.parameters(idParameter),
		Responses: map[string]*huma.Response{"200": textResponse("text/plain", "The server's own log of it, one line an event.")},
	}, s.getLog)
}

// createSandbox terminates a sandbox that nobody was told about: one whose
// client left before it was ready.
func (s *Server) createSandbox(ctx context.Context, who principal, in *bodyOf[innerdock.SandboxSpec]) (*bodyOf[innerdock.Sandbox], error) {
	if in.Body.Image == "" && in.Body.Snapshot == "" {
		return nil, innerdock.Errorf(innerdock.CodeInvalid, "image: name the image, or the snapshot, that the sandbox starts from")
	}
	sandbox, err := s.backend.Create(ctx, who.Tenant, in.Body)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		s.log.Info("client left during create: terminating", "container_id", sandbox.ID, "request_id", innerdock.RequestID(ctx))
		_, err := s.backend.Terminate(context.WithoutCancel(ctx), who.Tenant, sandbox.ID, innerdock.DefaultGrace)
		return nil, err
	}
	if who.Tenant == innerdock.DefaultTenant {
		s.sockets.add(sandbox)
	}
	return &bodyOf[innerdock.Sandbox]{sandbox}, nil
}

func (s *Server) pauseSandbox(ctx context.Context, who principal, in *struct {
	ID      string `path:"id" doc:"ID, or the name of a live one."`
	Persist bool   `query:"persist" doc:"Bring its memory to the disk."`
}) (*bodyOf[innerdock.Sandbox], error) {
	sandbox, err := s.backend.Pause(ctx, who.Tenant, in.ID, in.Persist)
	return &bodyOf[innerdock.Sandbox]{sandbox}, err
}

func (s *Server) terminateSandbox(ctx context.Context, who principal, in *struct {
	ID    string  `path:"id" doc:"ID, or the name of a live one."`
	Grace float64 `query:"grace" minimum:"0" maximum:"300" default:"10" doc:"Seconds from SIGTERM to SIGKILL; 0 kills at once."`
}) (*bodyOf[innerdock.Sandbox], error) {
	sandbox, err := s.backend.Terminate(ctx, who.Tenant, in.ID, time.Duration(in.Grace*float64(time.Second)))
	return &bodyOf[innerdock.Sandbox]{sandbox}, err
}

func (s *Server) listSandboxes(ctx context.Context, who principal, in *struct {
	All bool `query:"all" doc:"Those that have ended too."`
}) (*bodyOf[sandboxList], error) {
	sandboxes, err := s.backend.Sandboxes(ctx, who.Tenant, in.All)
	if sandboxes == nil {
		sandboxes = []innerdock.Sandbox{}
	}
	return &bodyOf[sandboxList]{sandboxList{sandboxes}}, err
}

func (s *Server) waitSandbox(ctx context.Context, who principal, in *struct {
	ID      string  `path:"id" doc:"ID, or the name of a live one."`
	Timeout float64 `query:"timeout" minimum:"0" maximum:"60" default:"60" doc:"Seconds."`
}) (*bodyOf[innerdock.Sandbox], error) {
	ctx, release := s.patience(ctx, in.Timeout)
	defer release()
	sandbox, err := s.backend.Wait(ctx, who.Tenant, in.ID)
	return &bodyOf[innerdock.Sandbox]{sandbox}, err
}

func (s *Server) getDocker(ctx context.Context, who principal, in *struct {
	ID   string  `path:"id" doc:"ID, or the name of a live one."`
	Wait float64 `query:"wait" minimum:"0" maximum:"60" doc:"Seconds to wait until ready or failed. Default 0."`
}) (*bodyOf[innerdock.DockerStatus], error) {
	if in.Wait == 0 {
		sandbox, err := s.backend.Sandbox(ctx, who.Tenant, in.ID)
		return &bodyOf[innerdock.DockerStatus]{sandbox.Docker}, err
	}
	ctx, release := s.patience(ctx, in.Wait)
	defer release()
	status, err := s.backend.WaitDocker(ctx, who.Tenant, in.ID)
	return &bodyOf[innerdock.DockerStatus]{status}, err
}

func (s *Server) getLog(w http.ResponseWriter, r *http.Request) {
	text, err := s.backend.Log(r.Context(), principalOf(r.Context()).Tenant, r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text)
}

// patience is ctx for a long poll of so many seconds.
func (s *Server) patience(ctx context.Context, seconds float64) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
	ctx, release := s.untilDrain(ctx)
	return ctx, func() { release(); cancel() }
}
