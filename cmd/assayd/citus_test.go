package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestMainJobOnCitus does the main job on a Citus cluster: the migrations, the
// import of 64,000 customers twice, their analysis to every known digit, and
// every call that the README shows.
// ASSAY_CITUS_URL names an empty database of a coordinator, with the extension
// and with its workers added. Without it nothing is verified here, which `make
// test` says.
func TestMainJobOnCitus(t *testing.T) {
	url := os.Getenv("ASSAY_CITUS_URL")
	if url == "" {
		t.Skip("not verified on Citus: ASSAY_CITUS_URL is not set")
	}
	addr := serveWith(t, url, t.TempDir()).address(t)
	conn := connect(t, addr)
	define(t, conn)
	importFile(t, addr)
	undisturbed := analyze(t, conn)
	checkHillstrom(t, undisturbed)
	again := importFile(t, addr)
	if !regexp.MustCompile(`exposures +0 +64,000 +0`).MatchString(again) || !regexp.MustCompile(`outcomes +0 +10,550 +0`).MatchString(again) {
		t.Errorf("the second import recorded something:\n%s", again)
	}
	compareAnalyses(t, "after the second import", undisturbed, analyze(t, conn))
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	runCalls(t, conn, string(readme))

	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	for _, table := range []string{"exposures", "outcomes"} {
		var column string
		if err := db.QueryRow(t.Context(), `SELECT distribution_column FROM citus_tables WHERE table_name = $1::regclass`, table).Scan(&column); err != nil || column != "subject_id" {
			t.Errorf("%s is distributed by %q, %v", table, column, err)
		}
	}
}
