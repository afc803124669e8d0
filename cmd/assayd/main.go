// Command assayd is the experimentation service and its tools in one binary:
// the server, its migrations, an importer and a demonstration.
//
// Every subcommand is a function of its context, its arguments and an env, and
// main does nothing but call run; so a test calls what a person calls. An error
// is one line on stderr and exit code 1. SIGINT and SIGTERM end the context; a
// second one ends the process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // The next signal is not caught.
	if err := run(ctx, os.Args[1:], env{os.Getenv, os.Stdout, os.Stderr}); err != nil {
		fmt.Fprintf(os.Stderr, "assayd: %v\n", err)
		os.Exit(1)
	}
}

// env is what a command knows of the world beside its arguments.
type env struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

// command is one subcommand. Its function reads its own flags; it returns
// flag.ErrHelp after printing its help.
type command struct {
	name string
	help string
	run  func(ctx context.Context, args []string, e env) error
}

var commands = []command{
	{"serve", "serve the gRPC API", runServe},
	{"migrate", "bring the database's schema up to date", runMigrate},
	{"import", "send the rows of a CSV file to a server", runImport},
	{"demo", "serve, import 64,000 customers and print the analysis", runDemo},
	{"calibrate", "try the statistical methods on simulated experiments", runCalibrate},
	{"version", "print the version", runVersion},
}

func run(ctx context.Context, args []string, e env) error {
	if len(args) == 0 {
		return errors.New("no command given; 'assayd help' lists them")
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		printCommands(e.stdout)
		return nil
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		if err := c.run(ctx, args[1:], e); err != nil && !errors.Is(err, flag.ErrHelp) {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		return nil
	}
	return fmt.Errorf("unknown command %q; 'assayd help' lists them", args[0])
}

func printCommands(w io.Writer) {
	fmt.Fprintln(w, "assayd COMMAND [FLAGS]")
	fmt.Fprintln(w)
	for _, c := range commands {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.help)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "'assayd COMMAND --help' lists the flags of a command.")
}

// parseFlags parses args. Asked for help it prints the usage line and the
// flags to stdout and returns flag.ErrHelp; faults are left to the caller to
// print, once.
func parseFlags(flags *flag.FlagSet, args []string, usage string, e env) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(e.stdout, usage)
		fmt.Fprintln(e.stdout)
		flags.SetOutput(e.stdout)
		flags.PrintDefaults()
	}
	return err
}

func runVersion(_ context.Context, _ []string, e env) error {
	version, revision := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	fmt.Fprintf(e.stdout, "assayd %s%s\n", version, revision)
	return nil
}
