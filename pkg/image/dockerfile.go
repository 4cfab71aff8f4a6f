package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/innerdock/innerdock"
	"github.com/innerdock/innerdock/pkg/image/recipe"
)

// Dockerfile returns the Dockerfile that a definition is: for BuildKit, which
// needs no frontend but its own, and for people.
func (s *Store) Dockerfile(def innerdock.ImageDefinition) (string, error) {
	p, err := newPlan(def)
	if err != nil {
		return "", err
	}
	return p.dockerfile(), nil
}

func (p plan) dockerfile() string {
	f := &dockerfile{secrets: p.def.Secrets}
	f.line(p.from()) // a Dockerfile's own first line may be for its reader
	for _, ref := range p.images {
		f.line("# its Docker has the image " + ref)
	}
	if len(p.steps) > 0 {
		f.line("USER root")
		f.line("ARG DEBIAN_FRONTEND=noninteractive")
	}
	if p.micromamba {
		f.line(`ENV PATH="` + recipe.Prefix + `/bin:$PATH" MAMBA_ROOT_PREFIX=` + recipe.Prefix)
	}
	for _, k := range slices.Sorted(maps.Keys(p.env)) {
		f.line("ENV " + k + "=" + quoted(p.env[k]))
	}
	for i, step := range p.def.Steps {
		f.step(step, p.steps[i].Args)
	}
	if p.user != "" {
		f.line("USER " + p.user)
	}
	if p.workingDir != "" { // made as that user
		f.line("WORKDIR " + quoted(p.workingDir))
	}
	return f.text.String()
}

// from is how the Dockerfile begins: with a base, or with another Dockerfile.
func (p plan) from() string {
	d := p.def.Dockerfile
	if d == nil {
		return "FROM " + familiar(p.base)
	}
	text := strings.TrimSuffix(d.Text, "\n")
	if d.Target != "" && !p.isBase() {
		text += "\nFROM " + d.Target
	}
	return text
}

// dockerfile is one that is being written.
type dockerfile struct {
	text    strings.Builder
	secrets []string
}

func (f *dockerfile) line(s string) { f.text.WriteString(s + "\n") }

// step writes a step, of which args are the command.
func (f *dockerfile) step(step innerdock.ImageStep, args []string) {
	switch {
	case step.Copy != nil:
		f.line("COPY [" + jsonString(escaped(step.Copy.Source)) + ", " + jsonString(escaped(step.Copy.Target)) + "]")
	case step.PythonPackages != nil:
		f.exec("--mount=type=cache,target=/root/.cache/pip", pipCommand[:len(pipCommand)-1], args[len(pipCommand):])
	case step.Micromamba != nil:
		f.script("--mount=type=cache,target="+recipe.Prefix+"/pkgs", args[2])
	case len(f.secrets) == 0 && plainLine.MatchString(step.Command) && !strings.Contains(step.Command, "<<") && !strings.HasSuffix(step.Command, `\`):
		f.line("RUN " + step.Command)
	case strings.HasPrefix(step.Command, "#!"): // else BuildKit takes another shell than we
		f.script("", "\n"+step.Command)
	default:
		f.script("", args[2])
	}
}

// plainLine is a command that a Dockerfile takes as it is.
var plainLine = regexp.MustCompile(`^[A-Za-z0-9_./({:$"'!~][^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f]$`)

// mounts are the flags of a RUN that has the secrets.
func (f *dockerfile) mounts(flags string) string {
	for _, name := range f.secrets {
		flags += " --mount=type=secret,id=" + name + ",required=true"
	}
	return strings.TrimSpace(flags)
}

// exports makes environment variables of the secrets. Not every BuildKit does it.
func (f *dockerfile) exports() string {
	var lines strings.Builder
	for _, name := range f.secrets {
		lines.WriteString("export " + name + `="$(cat /run/secrets/` + name + ")\"\n")
	}
	return lines.String()
}

// exec writes a command with its arguments, which no shell sees.
func (f *dockerfile) exec(flags string, command, args []string) {
	if len(f.secrets) > 0 {
		command = slices.Concat(shell(f.exports()+`exec "$@"`), []string{"sh"}, command)
	}
	words := make([]string, len(command))
	for i, word := range command {
		words[i] = jsonString(word)
	}
	line := "RUN " + f.mounts(flags) + " [" + strings.Join(words, ", ")
	for _, arg := range args {
		line += ", \\\n    " + jsonString(arg)
	}
	f.line(line + "]")
}

// shebang begins our own scripts.
const shebang = "#!/bin/sh\n"

// script writes a script of several lines.
func (f *dockerfile) script(flags, script string) {
	end := "EOF"
	for i := 1; slices.ContainsFunc(strings.Split(script, "\n"), func(line string) bool { return strings.TrimRight(line, "\r") == end }); i++ {
		end = fmt.Sprintf("EOF%d", i)
	}
	if flags = f.mounts(flags); flags != "" {
		flags += " "
	}
	if rest, ok := strings.CutPrefix(script, shebang); ok && len(f.secrets) > 0 {
		script = shebang + f.exports() + rest
	} else {
		script = f.exports() + script
	}
	f.line("RUN " + flags + "<<'" + end + "'\n" + strings.TrimSuffix(script, "\n") + "\n" + end)
}

// jsonString is s in JSON, with nothing escaped that needs not be.
func jsonString(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// quoted is s as a word in which a Dockerfile expands nothing.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

// escaped is s without quotes around it, for where there are others.
func escaped(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`, `$`, `\$`).Replace(s)
}

// familiar is a reference as people write it.
func familiar(ref name.Reference) string {
	s := ref.Name()
	if rest, ok := strings.CutPrefix(s, name.DefaultRegistry+"/"); ok {
		return strings.TrimPrefix(rest, "library/")
	}
	return s
}
