package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
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

	eraseOnCitus(t, conn)
	maintained, err := postgres.Open(t.Context(), url, experiment.Pepper(testPepper))
	if err != nil {
		t.Fatal(err)
	}
	defer maintained.Close()
	if err := maintained.Maintain(t.Context(), time.Now(), 0); err != nil { // It repeats all erasures at once.
		t.Error(err)
	}

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

// eraseOnCitus erases a customer, whose events lie on one node and whose override
// on all, beside which the rest of a batch is recorded.
func eraseOnCitus(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	const subject = `"subject":{"key":"customer-2"}`
	for _, c := range []struct{ service, method, request, want string }{
		{"ExperimentService", "SetOverrides", `{"experiment":"hillstrom","overrides":[{"subject_key":"customer-2","variant":"mens"}]}`, `"changed":1`},
		{"EventService", "RecordOutcomes", `{"outcomes":[{` + subject + `,"event_id":"x","name":"visit","occurred_time":"2026-01-05T10:03:00Z"}]}`, `"recorded":1`},
		{"SubjectService", "GetSubject", `{` + subject + `}`, `"outcomes":[{`},
		{"SubjectService", "EraseSubject", `{` + subject + `}`, `"exposures":"1"`},
		{"SubjectService", "GetSubject", `{` + subject + `}`, `"eraseTime"`},
		{"EventService", "RecordOutcomes", `{"outcomes":[{` + subject + `,"event_id":"x","name":"visit","occurred_time":"2026-01-05T10:03:00Z"},
			{"subject":{"key":"customer-3"},"event_id":"x","name":"visit","occurred_time":"2026-01-05T10:03:00Z"}]}`, `REJECTION_REASON_ERASED`},
		{"SubjectService", "EraseSubject", `{"subject":{"key":"c-2"}}`, `"rosterEntries":"1"`},
		{"AuditService", "ListAuditEvents", `{"page_size":2}`, `AUDIT_ACTION_ERASE`},
	} {
		reply, err := call(t.Context(), conn, "assay.v1."+c.service, c.method, c.request)
		if err != nil {
			t.Errorf("%s: %v", c.method, err)
			continue
		}
		text, err := protojson.Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(string(text), " ", ""); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s has no %s", c.method, got, c.want)
		}
	}
}
