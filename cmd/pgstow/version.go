package main

import (
	"fmt"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by the linker, see the Makefile.
var version string

func versionCommand(rt *runtime) *command {
	return &command{
		manual: manual{
			usage:    []string{"version [--json]"},
			examples: []example{{"Which pgstow is this?", "pgstow version"}},
		},
		Command: &cli.Command{
			Name:  "version",
			Usage: "print the version",
			Flags: []cli.Flag{jsonFlag()},
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
				info := buildInfo()
				if c.Bool(flagJSON) {
					return printJSON(rt.out, info)
				}
				_, err := fmt.Fprintf(rt.out, "pgstow %s (%s, %s/%s)\n", info.Version, info.Go, info.OS, info.Arch)
				return err
			},
		},
	}
}

type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func buildInfo() build {
	b := build{Version: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "GOOS":
			b.OS = s.Value
		case "GOARCH":
			b.Arch = s.Value
		}
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
		if len(b.Revision) >= 12 {
			b.Version += "-" + b.Revision[:12]
		}
	}
	return b
}
