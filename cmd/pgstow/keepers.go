package main

import (
	"os"
	"os/user"
	"strings"

	"github.com/urfave/cli/v2"
)

const (
	flagBy  = "by"
	flagYes = "yes"
)

// byFlag names who does it, for records.
func byFlag() cli.Flag {
	return &cli.StringFlag{Name: flagBy, DefaultText: "user@host", Usage: "`WHO` does it, recorded beside the archive"}
}

// by is the recorded name: as given, or the operating system's.
func by(c *cli.Context) string {
	if c.IsSet(flagBy) {
		return c.String(flagBy)
	}
	name := "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	return strings.ToValidUTF8(name+"@"+host, "?")
}

func yesFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: flagYes, Usage: usage}
}

// summaryPrefix: where a failure follows, its line is the one that names the
// program.
func summaryPrefix(failure error) string {
	if failure != nil {
		return ""
	}
	return "pgstow: "
}
