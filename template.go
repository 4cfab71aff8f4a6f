package innerdock

import "time"

// TemplateSpec asks the server to make a template now, of what would be started
// from it.
type TemplateSpec struct {
	Image   string        `json:"image" doc:"ID of a built image." minLength:"1"`
	Memory  string        `json:"memory,omitempty" doc:"Of a sandbox, as a quantity. Default 1Gi. One template serves all sizes from a power of two to the next."`
	Disk    string        `json:"disk,omitempty" doc:"Of a sandbox, as a quantity. Default 10Gi."`
	Profile DockerProfile `json:"profile,omitempty" doc:"Of Docker. Default full."`
}

// Template is the checkpoint of a sandbox with Docker that was never used, which
// sandboxes of one kind are restored from.
type Template struct {
	ID        string        `json:"id"`
	Image     string        `json:"image"`
	Memory    int64         `json:"memory" doc:"Bytes. It serves sandboxes with this and up to twice as much."`
	Disk      int64         `json:"disk" doc:"Bytes."`
	Profile   DockerProfile `json:"profile,omitempty" doc:"Of Docker."`
	Size      int64         `json:"size" doc:"Bytes of the checkpoint."`
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    time.Time     `json:"used_at" doc:"When a sandbox was last restored from it."`
}
