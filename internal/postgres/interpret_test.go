package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/assayhq/assay/internal/experiment"
)

func TestInterpret(t *testing.T) {
	const unavailable, badData, fault = "unavailable", "bad data", "fault"
	for code, want := range map[string]string{
		"08006": unavailable, // connection_failure
		"25006": unavailable, // read_only_sql_transaction
		"25P03": unavailable, // idle_in_transaction_session_timeout
		"40001": unavailable, // serialization_failure
		"40P01": unavailable, // deadlock_detected
		"53100": unavailable, // disk_full
		"53300": unavailable, // too_many_connections
		"55P03": unavailable, // lock_not_available
		"57014": unavailable, // query_canceled, also by statement_timeout
		"57P01": unavailable, // admin_shutdown
		"57P03": unavailable, // cannot_connect_now
		"58030": unavailable, // io_error
		"22003": badData,     // numeric_value_out_of_range
		"22021": badData,     // character_not_in_repertoire
		"22P05": badData,     // untranslatable_character
		"23514": badData,     // check_violation
		"23505": fault,       // unique_violation
		"25P02": fault,       // in_failed_sql_transaction
		"28P01": fault,       // invalid_password
		"42P01": fault,       // undefined_table
		"55000": fault,       // object_not_in_prerequisite_state
		"XX000": fault,       // internal_error
		"":      fault,
	} {
		driver := &pgconn.PgError{Code: code}
		err := interpret(fmt.Errorf("a statement: %w", driver))
		got := fault
		switch {
		case errors.Is(err, experiment.ErrUnavailable):
			got = unavailable
		case errors.Is(err, ErrBadData):
			got = badData
		}
		if got != want || !errors.Is(err, driver) {
			t.Errorf("%s: %s (%v), want %s", code, got, err, want)
		}
	}
	if err := interpret(nil); err != nil {
		t.Errorf("nil: %v", err)
	}
	if err := interpret(context.DeadlineExceeded); !errors.Is(err, experiment.ErrUnavailable) {
		t.Errorf("a deadline: %v", err)
	}
	refusal := experiment.Errorf(experiment.ErrAborted, "ETAG_MISMATCH", "no")
	for _, err := range []error{refusal, context.Canceled, errors.New("other")} {
		if got := interpret(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
