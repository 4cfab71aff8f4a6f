package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/innerdock/innerdock"
)

// principal is whom a request speaks for.
type principal struct {
	Tenant string
	Admin  bool // came through the local socket
}

type principalKey struct{}

func principalOf(ctx context.Context) principal {
	who, _ := ctx.Value(principalKey{}).(principal)
	return who
}

// needAdmin refuses everybody but the administrator.
func (p principal) needAdmin() error {
	if !p.Admin {
		return innerdock.Errorf(innerdock.CodeForbidden, "this is for the server's administrator: use its local socket")
	}
	return nil
}

// needOwner refuses tenants other than the server's own.
func (p principal) needOwner() error {
	if p.Tenant != innerdock.DefaultTenant {
		return innerdock.Errorf(innerdock.CodeForbidden,
			"images are shared by all tenants; only tenant %q lists and removes them", innerdock.DefaultTenant)
	}
	return nil
}

// authenticate lets requests under /v1 through once identify has named whom
// they speak for. The rest is public: health and the API's description.
func (s *Server) authenticate(identify func(context.Context, *http.Request) (principal, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/") {
			who, err := identify(r.Context(), r)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), principalKey{}, who))
		}
		s.route(w, r)
	})
}

func (s *Server) byKey(ctx context.Context, r *http.Request) (principal, error) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	key = strings.TrimSpace(key)
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return principal{}, innerdock.Errorf(innerdock.CodeUnauthorized,
			"an API key is needed: send `Authorization: Bearer KEY`, or set INNERDOCK_API_KEY; `innerdock key create` makes one")
	}
	tenant, err := s.keys.Tenant(ctx, key)
	if err != nil {
		return principal{}, err
	}
	return principal{Tenant: tenant}, nil
}

// checkHost refuses a Host that is not this server's: a name that an attacker
// points at our address (DNS rebinding). Addresses cannot be rebound.
func (s *Server) checkHost(known func(string) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOnly(r.Host)
		_, err := netip.ParseAddr(host)
		if err != nil && host != "localhost" && !slices.Contains(s.hosts, host) && !known(host) {
			s.fail(w, r, innerdock.Errorf(innerdock.CodeForbidden,
				"this server is not called %q; `innerdock server --hostname` adds a name", host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOnly is a Host header without its port and brackets, in lower case.
func hostOnly(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
