package innerdock

import "time"

// MaxForks bounds the copies that one call makes.
const MaxForks = 64

// Snapshot is a sandbox at one moment: its memory, processes and files. New
// sandboxes go on from there.
type Snapshot struct {
	ID        string    `json:"id"`
	Sandbox   string    `json:"sandbox" doc:"ID of the sandbox that it was taken of."`
	Image     string    `json:"image" doc:"It needs this image as long as it is used."`
	CPU       float64   `json:"cpu" doc:"Cores that the sandbox had."`
	Memory    int64     `json:"memory" doc:"Bytes that the sandbox had."`
	Disk      int64     `json:"disk" doc:"Bytes that the sandbox had, and each new one has."`
	Docker    bool      `json:"docker" doc:"Docker runs in it."`
	Size      int64     `json:"size" doc:"Bytes on the server's disk."`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When the server removes it; absent: never."`
}

// SnapshotSpec says how long a snapshot is kept.
type SnapshotSpec struct {
	TTL  float64 `json:"ttl,omitempty" minimum:"0" doc:"Seconds until the server removes it. Default: the server's --snapshot-max-age, which is the most."`
	Keep int     `json:"keep,omitempty" minimum:"0" doc:"How many snapshots of the sandbox are kept: of the older ones, the rest is removed. Default: the server's --snapshot-keep, which is the most."`
}

// ForkSpec asks for copies of a running sandbox.
type ForkSpec struct {
	Count int `json:"count,omitempty" minimum:"1" maximum:"64" default:"1" doc:"How many."`
}
