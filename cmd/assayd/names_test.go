package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestOutcomeNames imports a file of more names than one call may bring, and than are
// admitted in an hour. The metrics say so, and a server with a higher limit takes the rest.
func TestOutcomeNames(t *testing.T) {
	dir, files := dataDir(t), t.TempDir()
	var rows strings.Builder
	rows.WriteString("id,name\n")
	for i := range 40 {
		fmt.Fprintf(&rows, "%d,kind %d\n", i, i)
	}
	mapping, file := filepath.Join(files, "mapping.yaml"), filepath.Join(files, "events.csv")
	for name, text := range map[string]string{
		mapping: `{subject: {key: "{id}"}, outcomes: [{name: "{name}", event_id: "{id}", time: 2008-03-01T00:00:00Z}]}`,
		file:    rows.String(),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		limit             string
		printed           []string
		known, most, left float64
	}{
		{"350", []string{"  outcomes         35           0         5", "NEW_NAMES_PER_HOUR: 5", "35 new outcome names are admitted in an hour"}, 35, 350, 0},
		{"1000", []string{"  outcomes          5          35         0"}, 40, 1000, 60},
	} {
		metrics := freeAddress(t)
		server := start(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--metrics-listen", metrics, "--outcome-names", step.limit)
		p := start(t, "import", "--target", server.address(t), "--mapping", mapping, file)
		p.waitEnd(t)
		for _, part := range step.printed {
			if !strings.Contains(p.output.String(), part) {
				t.Errorf("limit %s: %v, no %q in the report:\n%s", step.limit, p.err, part, p.output.String())
			}
		}
		for metric(t, metrics, "assay_outcome_names") < 0 {
			time.Sleep(10 * time.Millisecond) // It starts beside the API.
		}
		for name, want := range map[string]float64{"assay_outcome_names": step.known, "assay_outcome_names_limit": step.most, "assay_outcome_names_left": step.left} {
			if got := metric(t, metrics, name); got != want {
				t.Errorf("limit %s: %s is %v, want %v", step.limit, name, got, want)
			}
		}
		server.cmd.Process.Signal(syscall.SIGTERM)
		server.waitEnd(t)
	}

	// Where more than half of the room is taken, maintenance looks for names to free.
	start(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--outcome-names", "50").address(t)
	conn, err := pgx.Connect(t.Context(), socketURL(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for looked := false; !looked; time.Sleep(10 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM settings WHERE name = 'outcome_names_looked_at')`).Scan(&looked); err != nil {
			t.Fatal(err)
		}
	}
}
