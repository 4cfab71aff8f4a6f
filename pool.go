package innerdock

import "time"

// MaxPoolSize bounds the sandboxes that one pool keeps ready.
const MaxPoolSize = 1000

// PoolSpec asks the server to keep sandboxes ready.
type PoolSpec struct {
	Image  string     `json:"image" doc:"ID of a built image." minLength:"1"`
	Size   int        `json:"size" minimum:"1" maximum:"1000" doc:"How many sandboxes are kept ready."`
	Memory string     `json:"memory,omitempty" doc:"Of each, as a quantity. Default 1Gi."`
	Disk   string     `json:"disk,omitempty" doc:"Of each, as a quantity. Default 10Gi."`
	Docker DockerSpec `json:"docker,omitempty"`
}

// Pool is a number of sandboxes that wait, with Docker running if asked for, for
// a request that they fit.
type Pool struct {
	ID        string        `json:"id"`
	Image     string        `json:"image" doc:"Empty while that of a declared pool is being built."`
	Size      int           `json:"size" doc:"How many are to be ready."`
	Ready     int           `json:"ready" doc:"How many are."`
	Memory    int64         `json:"memory" doc:"Bytes."`
	Disk      int64         `json:"disk" doc:"Bytes."`
	Docker    bool          `json:"docker"`
	Profile   DockerProfile `json:"profile,omitempty" doc:"Of Docker."`
	Reason    string        `json:"reason,omitempty" doc:"Why fewer are ready, when it is not for the moment only."`
	Declared  bool          `json:"declared,omitempty" doc:"The server's configuration asks for it; it cannot be deleted."`
	CreatedAt time.Time     `json:"created_at"`
}
