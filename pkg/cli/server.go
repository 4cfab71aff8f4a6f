package cli

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/registry"
	"github.com/innerdock/innerdock/pkg/server"
	"github.com/innerdock/innerdock/pkg/worker"
)

// Defaults that the server and the doctor share.
const (
	defaultData = "/var/lib/innerdock"
	defaultPool = "10.213.0.0/16"
)

// serverConfig is what the flags of `innerdock server` say.
type serverConfig struct {
	Data      string // directory of the state, absolute
	Images    string // directory of the images, absolute
	Runsc     string // path of runsc
	Pool      netip.Prefix
	Allow     []netip.Prefix
	Templates int64 // bytes for the templates of warm starts; 0: none
	Builds    buildFlags
	Snapshots worker.SnapshotPolicy
	Pools     []worker.DeclaredPool
	Registry  registry.Config
	Prune     innerdock.ImagePrune
	Mirrors   map[string][]name.Registry
	Keychain  authn.Keychain
	Listeners server.Listeners
	Hostnames []string
	Log       *slog.Logger
}

// serverFlags are the flags as they are written.
type serverFlags struct {
	data, socket, tlsCert, tlsKey, runsc, images, pool, templates, logFormat, logLevel string
	listen, hostnames, allow, pools                                                    []string
	registry                                                                           registryFlags
	image                                                                              imageStoreFlags
	builds                                                                             buildFlags
	snapshot                                                                           snapshotFlags
}

func (a *app) serverCommand() *cobra.Command {
	var flags serverFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server",
		Long: `Run the server in the foreground, as root.

It listens on a Unix socket, whose users are its administrators. With --listen it
also serves TCP to those who have an API key (innerdock key create); addresses
other than loopback need a certificate. SIGTERM or Ctrl-C stop it: requests get
ten seconds to finish, and sandboxes live on for the next server to adopt. A
second signal stops it at once.`,
		Example: `  sudo innerdock server
  sudo innerdock server --listen 127.0.0.1:7070
  sudo innerdock server --listen :7070 --tls-cert cert.pem --tls-key key.pem
  sudo innerdock server --pool-of python3.11,docker,size=10,memory=4Gi`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&flags.data, "data", defaultData, "directory of the server's state")
	f.StringVar(&flags.images, "images", "", "directory of the images (default: images in --data)")
	f.StringVar(&flags.socket, "socket", "/run/innerdock/innerdock.sock", "Unix socket to listen on")
	f.StringArrayVar(&flags.listen, "listen", nil, "host:port to listen on as well (repeatable)")
	f.StringVar(&flags.tlsCert, "tls-cert", "", "PEM file of the certificate for --listen")
	f.StringVar(&flags.tlsKey, "tls-key", "", "PEM file of its key")
	f.StringArrayVar(&flags.hostnames, "hostname", nil, "name that clients call this server by, besides those in the certificate (repeatable)")
	f.StringVar(&flags.runsc, "runsc", "", "path of runsc (default: the newest in the cache, else from PATH)")
	f.StringVar(&flags.pool, "pool", defaultPool, "addresses for the sandboxes")
	f.StringArrayVar(&flags.allow, "allow", nil, "CIDR that all sandboxes may reach although it is private (repeatable)")
	flags.image.add(f)
	flags.snapshot.add(f)
	f.StringVar(&flags.templates, "templates", "4Gi", "how much the templates take that sandboxes are restored from; 0 starts every sandbox cold")
	f.StringArrayVar(&flags.pools, "pool-of", nil, poolForm+": sandboxes to keep ready, as innerdock pool create does, for as long as the server is started so (repeatable)")
	flags.builds.add(f)
	flags.registry.add(f)
	f.StringVar(&flags.logFormat, "log-format", "text", "text or json")
	f.StringVar(&flags.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := a.serverConfig(&flags)
		if err != nil {
			return err
		}
		return a.serve(cmd.Context(), cfg)
	}
	return cmd
}

// serve opens the parts, serves until a signal, and closes them.
func (a *app) serve(ctx context.Context, cfg serverConfig) (err error) {
	parts, err := openBackend(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if closed := parts.Close(); err == nil {
			err = closed
		}
	}()
	s := server.New(server.Config{
		Backend: parts.Backend, Images: parts.Images, Builders: parts.Builders, Keys: parts.Keys, Registry: parts.Registry, Pools: parts.Pools, Templates: parts.Templates, Snapshots: parts.Snapshots,
		Version: Version, Runsc: parts.Runsc, Hosts: cfg.Hostnames, Log: cfg.Log,
	})
	return s.Serve(ctx, a.abort, cfg.Listeners, func() { notifyReady(a.Getenv("NOTIFY_SOCKET")) })
}

// serverConfig checks the flags.
func (a *app) serverConfig(flags *serverFlags) (serverConfig, error) {
	cfg := serverConfig{
		Hostnames: flags.hostnames,
		Listeners: server.Listeners{
			Socket: flags.socket, TCP: flags.listen, TLSCert: flags.tlsCert, TLSKey: flags.tlsKey,
		},
	}
	var err error
	if cfg.Log, err = a.logger(flags.logFormat, flags.logLevel); err != nil {
		return cfg, err
	}
	if cfg.Data, err = filepath.Abs(flags.data); err != nil {
		return cfg, usage("--data %s: %w", flags.data, err)
	}
	cfg.Images = filepath.Join(cfg.Data, "images")
	if flags.images != "" {
		if cfg.Images, err = filepath.Abs(flags.images); err != nil {
			return cfg, usage("--images %s: %w", flags.images, err)
		}
	}
	if cfg.Pool, err = netip.ParsePrefix(flags.pool); err != nil {
		return cfg, usage("--pool %s is not a CIDR such as %s", flags.pool, defaultPool)
	}
	for _, text := range flags.allow {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return cfg, usage("--allow %s is not a CIDR such as 10.1.0.0/16", text)
		}
		cfg.Allow = append(cfg.Allow, prefix)
	}
	if flags.templates != "0" {
		if cfg.Templates, err = innerdock.ParseQuantity("--templates", flags.templates); err != nil {
			return cfg, err
		}
	}
	if cfg.Pools, err = declaredPools(flags.pools); err != nil {
		return cfg, err
	}
	if cfg.Builds, err = flags.builds.checked(); err != nil {
		return cfg, err
	}
	if cfg.Registry, err = flags.registry.config(cfg.Data); err != nil {
		return cfg, err
	}
	if err := flags.image.config(a, &cfg); err != nil {
		return cfg, err
	}
	if cfg.Snapshots, err = flags.snapshot.policy(); err != nil {
		return cfg, err
	}
	cfg.Runsc, err = a.findRunsc(flags.runsc)
	return cfg, err
}

func (a *app) logger(format, level string) (*slog.Logger, error) {
	var options slog.HandlerOptions
	var threshold slog.Level
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, level) || threshold.UnmarshalText([]byte(level)) != nil {
		return nil, usage("--log-level %s: write debug, info, warn or error", level)
	}
	options.Level = threshold
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.Stderr, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.Stderr, &options)), nil
	}
	return nil, usage("--log-format %s: write text or json", format)
}

// parts are what a server is made of.
type parts struct {
	Backend   server.Backend
	Images    server.Images
	Builders  server.Builders
	Keys      server.Keys
	Registry  server.Registry
	Pools     server.Pools
	Templates server.Templates
	Snapshots server.Snapshots
	Runsc     string // version
	Close     func() error
}
