package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/assayhq/assay/internal/postgres"
)

// maxOutcomeNames is the most that can be set: some 20 MB of memory.
const maxOutcomeNames = 100_000

// settings are those of the server. Each has a flag, an environment variable
// and a default; the flag wins.
type settings struct {
	listen        string
	dataDir       string
	databaseURL   string
	pepperFile    string
	metricsListen string
	catalogPoll   time.Duration
	retention     time.Duration
	keepAnalyses  time.Duration
	outcomeNames  int
	behindProxy   bool
	logLevel      slog.Level

	pepper string // From the environment alone: arguments are visible to everyone.
	log    *slog.Logger
}

// parseSettings reads the settings of a command from its arguments and the
// environment.
func parseSettings(command string, args []string, e env) (settings, error) {
	s := settings{pepper: e.getenv("ASSAY_PEPPER")}
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	text := func(p *string, name, value, help string) {
		flags.StringVar(p, name, value, help+" ("+variable(name)+")")
	}
	text(&s.listen, "listen", "127.0.0.1:8080", "address of the gRPC API")
	text(&s.dataDir, "data-dir", "assay-data", "directory of the private Postgres, its pepper and the last catalog; with a database URL, of that alone")
	text(&s.databaseURL, "database-url", "", "the database to use instead of a private Postgres")
	text(&s.pepperFile, "pepper-file", "", "file with the secret that subject keys are hashed with; or ASSAY_PEPPER holds it")
	text(&s.metricsListen, "metrics-listen", "", "address of the Prometheus metrics, path /metrics; empty for none")
	flags.DurationVar(&s.catalogPoll, "catalog-poll", 10*time.Second,
		"how late a change shows whose notice was lost ("+variable("catalog-poll")+")")
	flags.DurationVar(&s.retention, "retention", 0,
		"how long events are kept, such as 9600h; by whole months, and 0 keeps them for ever ("+variable("retention")+")")
	flags.DurationVar(&s.keepAnalyses, "analysis-retention", 0,
		"how long stored analyses are kept, but for those that decisions rest on and the newest; 0 keeps them for ever ("+variable("analysis-retention")+")")
	flags.IntVar(&s.outcomeNames, "outcome-names", postgres.DefaultOutcomeNames,
		"how many outcome names there may be, of which a hundredth may be new in one call and a tenth in one hour ("+variable("outcome-names")+")")
	flags.BoolVar(&s.behindProxy, "behind-proxy", false,
		"clients come through a proxy and share its address, so that no address is held to its share of connections ("+variable("behind-proxy")+")")
	flags.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "least level that is logged: debug, info, warn or error ("+variable("log-level")+")")
	var fault error
	flags.VisitAll(func(f *flag.Flag) {
		if v := e.getenv(variable(f.Name)); v != "" {
			if err := flags.Set(f.Name, v); err != nil {
				fault = fmt.Errorf("%s: %w", variable(f.Name), err)
			}
		}
	})
	if fault != nil {
		return s, fault
	}
	if err := parseFlags(flags, args, "assayd "+command+" [FLAGS]", e); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.retention < 0 {
		return s, errors.New("--retention must not be negative")
	}
	if s.keepAnalyses < 0 {
		return s, errors.New("--analysis-retention must not be negative")
	}
	if s.outcomeNames < 1 || s.outcomeNames > maxOutcomeNames {
		return s, fmt.Errorf("--outcome-names must be from 1 to %d, as every server has them in memory", maxOutcomeNames)
	}
	if s.catalogPoll <= 0 {
		return s, errors.New("--catalog-poll must be greater than 0")
	}
	s.log = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: s.logLevel}))
	return s, nil
}

// variable is the environment variable of a flag.
func variable(name string) string {
	return "ASSAY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
