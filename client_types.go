package innerdock

// VersionInfo is what a server says about itself.
type VersionInfo struct {
	Version string `json:"version"`
	Runsc   string `json:"runsc" doc:"Version of the gVisor runtime."`
	API     string `json:"api" doc:"The API's version: the prefix of its paths."`
}

// KeySpec asks for an API key.
type KeySpec struct {
	Name   string `json:"name,omitempty" doc:"What people call it." maxLength:"100"`
	Tenant string `json:"tenant,omitempty" doc:"Whose sandboxes it reaches. Default: default." pattern:"^[a-z0-9][a-z0-9-]{0,62}$" patternDescription:"lower-case letters, digits and dashes"`
}

// NewKey is a key that was just made. Key is never shown again.
type NewKey struct {
	Key string `json:"key"`
	KeyInfo
}

// SignalSpec asks for a signal to a process and its group.
type SignalSpec struct {
	Signal string `json:"signal" doc:"Such as SIGTERM."`
}
