package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// console is where a run reads and writes. Data goes to out, all else to err.
type console struct {
	in       io.Reader
	out, err io.Writer
}

// runtime is what the global flags decide, handed to every command.
type runtime struct {
	console
	line     commandLine
	log      *slog.Logger
	logJSON  bool
	progress progressMode
	status   *statusLine // on a terminal, with --progress auto

	configFile string  // --config, "" for none
	loaded     *config // what config returned
}

// run executes one command line and returns the exit code. It is all of
// pgstow but the process: it neither exits nor handles signals.
func run(ctx context.Context, argv []string, con console) int {
	rt := &runtime{console: con, log: slog.New(slog.DiscardHandler)}
	quiet := context.AfterFunc(ctx, func() {
		rt.log.Warn(context.Cause(ctx).Error() + ": aborting cleanly; a second signal kills")
	})
	err := dispatch(ctx, argv, rt)
	quiet()
	code := exitCode(ctx, err)
	if err != nil {
		rt.reportError(ctx, err, code)
	}
	return code
}

func dispatch(ctx context.Context, argv []string, rt *runtime) error {
	prog := newProgram(rt)
	line, err := permute(prog, argv)
	rt.line = line
	if err != nil {
		return err
	}
	return prog.RunContext(ctx, line.args)
}

func newProgram(rt *runtime) *program {
	prog := &program{App: &cli.App{
		Name:            "pgstow",
		Usage:           "PostgreSQL dumps to S3, GCS or folders and back: whole or absent",
		HideVersion:     true, // "version" is a command
		HideHelpCommand: true, // permute understands "help"
		Writer:          rt.out,
		ErrWriter:       rt.err,
		Flags:           globalFlags(),
		// A label or table name may hold a comma.
		DisableSliceFlagSeparator: true,
		// Without one the library ends the process by itself.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   asUsageError,
		Before:         rt.configure,
	}}
	prog.commands = []*command{
		archiveCommand(rt), restoreCommand(rt), cloneCommand(rt),
		listCommand(rt), showCommand(rt), verifyCommand(rt), drillCommand(rt),
		retainCommand(rt), holdCommand(rt), rekeyCommand(rt), expireCommand(rt), undeleteCommand(rt),
		lifecycleCommand(rt), thawCommand(rt), cleanupCommand(rt), auditCommand(rt), doctorCommand(rt), versionCommand(rt),
	}
	prog.Action = func(c *cli.Context) error {
		prog.Writer = rt.err
		if err := cli.ShowAppHelp(c); err != nil {
			return err
		}
		return usagef("no command given")
	}
	for _, c := range prog.commands {
		c.HideHelpCommand = true // "help" may be the name of an archive
		c.OnUsageError = asUsageError
		c.CustomHelpTemplate = commandHelp(prog.App, c)
		prog.Commands = append(prog.Commands, c.Command)
	}
	prog.CustomAppHelpTemplate = appHelp(prog)
	return prog
}

func asUsageError(_ *cli.Context, err error, _ bool) error { return usagef("%w", err) }

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", EnvVars: []string{"PGSTOW_CONFIG"}, Usage: "configuration `FILE` with stores, policies and databases; none is looked for by itself"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`text` or json"},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`debug`, info, warn or error"},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "`auto` (a line on a terminal, else plain), plain (a record every 30 s) or none"},
	}
}

// configure turns the global flags into log and progress.
func (rt *runtime) configure(c *cli.Context) error {
	rt.configFile = c.String("config")
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return usagef("--log-level %q: want debug, info, warn or error", c.String("log-level"))
	}
	if err := rt.configureProgress(c); err != nil {
		return err
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format := c.String("log-format"); format {
	case "json":
		rt.logJSON = true
		rt.log = slog.New(slog.NewJSONHandler(rt.err, opts))
	case "text":
		rt.log = slog.New(slog.NewTextHandler(rt.err, opts))
	default:
		return usagef("--log-format %q: want text or json", format)
	}
	return nil
}

func (rt *runtime) configureProgress(c *cli.Context) error {
	rt.progress = progressMode(c.String("progress"))
	if !slices.Contains([]progressMode{progressAuto, progressPlain, progressNone}, rt.progress) {
		return usagef("--progress %q: want auto, plain or none", rt.progress)
	}
	if rt.progress != progressAuto {
		return nil
	}
	if c.String("log-format") == "json" || !isTerminal(rt.err) {
		rt.progress = progressPlain
		return nil
	}
	rt.status = &statusLine{term: rt.err.(*os.File)}
	rt.err = rt.status
	return nil
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
