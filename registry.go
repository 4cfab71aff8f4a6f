package innerdock

import "time"

// SeedSpec asks for images in the registry cache that no registry is needed for.
type SeedSpec struct {
	Names     []string `json:"names,omitempty" doc:"Of hello-world, testcontainers/ryuk, busybox and nginx; default all."`
	IfOffline bool     `json:"if_offline,omitempty" doc:"Do nothing where the registry behind the cache can be reached."`
}

// RegistryUsage is what the registry cache holds, and has done since the server
// began.
type RegistryUsage struct {
	Blobs            int                `json:"blobs" doc:"Files in the store: layers, configurations, manifests."`
	CachedBytes      int64              `json:"cached_bytes" doc:"Of what was pulled."`
	SeededBytes      int64              `json:"seeded_bytes" doc:"Of seeded images, which are never removed and do not count."`
	ReclaimableBytes int64              `json:"reclaimable_bytes" doc:"Of what was pulled and is not being sent now."`
	MaxBytes         int64              `json:"max_bytes" doc:"The limit of cached_bytes."`
	MaxAge           int64              `json:"max_age" doc:"Seconds after which what nobody pulls is removed."`
	Served           int64              `json:"served" doc:"Blobs sent to sandboxes since the server began."`
	Downloaded       int64              `json:"downloaded" doc:"Blobs fetched for that."`
	Upstreams        []RegistryUpstream `json:"upstreams" doc:"The registries that are asked, in this order."`
}

// RegistryUpstream is a registry behind the cache.
type RegistryUpstream struct {
	URL   string `json:"url"`
	State string `json:"state" enum:"ok,limited,unreachable" doc:"limited: it refuses requests for a time."`
}

// RegistryImage is a tag in the registry cache.
type RegistryImage struct {
	Name   string    `json:"name"`
	Digest string    `json:"digest"`
	Bytes  int64     `json:"bytes" doc:"Of what is stored of it; parts that images share count for each."`
	Seeded bool      `json:"seeded,omitempty" doc:"Put there by an administrator; never removed."`
	UsedAt time.Time `json:"used_at"`
}

// PruneSpec says what of the registry cache is removed.
type PruneSpec struct {
	Unused int64 `json:"unused,omitempty" doc:"Seconds for which nobody has pulled it. Default: 0, all." minimum:"0" maximum:"3153600000"`
}

// RegistryPruned is what was removed of the registry cache.
type RegistryPruned struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}
