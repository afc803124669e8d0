package postgres

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// StateChange moves an experiment to another state.
type StateChange struct {
	Author string           // As the caller named itself.
	From   experiment.State // Empty: from any state that allows it.
	To     experiment.State

	// Concluding only.
	Shipped    string // The variant to ship, empty for none.
	Rationale  string
	Conclusion *experiment.Conclusion
}

// TransitionExperiment changes an experiment's state. Starting pins the
// metrics, seals the plan, takes a slot in the layer, which concluding frees, and
// binds the holdouts in force.
func (db *DB) TransitionExperiment(ctx context.Context, key string, etag int64, change StateChange) (*experiment.Experiment, error) {
	to := change.To
	var moved *experiment.Experiment
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if to == experiment.StateRunning { // Perhaps from a draft.
			if err := lockHoldouts(ctx, tx, lockToStart); err != nil {
				return err
			}
		}
		e, err := lockExperiment(ctx, tx, key, etag)
		if err != nil {
			return err
		}
		if change.From != "" && change.From != e.State {
			return experiment.Errorf(experiment.ErrPrecondition, "STATE_FORBIDS", "the experiment is %s, not %s", e.State, change.From)
		}
		if err := e.State.CheckTransition(to); err != nil {
			return err
		}
		if e.State == experiment.StatePaused && to == experiment.StateRunning {
			if err := checkTransitions(ctx, tx, e); err != nil {
				return err
			}
		}
		if err := lockLayer(ctx, tx, e.Current.Definition.Layer); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE experiments SET state = $2, version = (SELECT nextval('definition_version')), update_time = statement_timestamp()
			WHERE id = $1`, e.ID, to); err != nil {
			return err
		}
		switch {
		case to == experiment.StateRunning && e.State == experiment.StateDraft:
			err = start(ctx, tx, e)
		case to == experiment.StateConcluded:
			err = conclude(ctx, tx, e, change)
		}
		if err != nil {
			return err
		}
		if err := insertTransition(ctx, tx, e.ID, to); err != nil {
			return err
		}
		if err := announce(ctx, tx, key); err != nil {
			return err
		}
		if err := auditTransition(ctx, tx, e, change); err != nil {
			return err
		}
		moved, err = getExperiment(ctx, tx, key)
		return err
	})
	return moved, err
}

func auditTransition(ctx context.Context, tx pgx.Tx, e *experiment.Experiment, change StateChange) error {
	event := experiment.AuditEvent{
		Author: change.Author, Action: experiment.AuditOf(e.State, change.To), Kind: experiment.AuditedExperiment, Key: e.Key,
	}
	details := map[string]any{}
	if change.Shipped != "" {
		details["shipped_variant"] = change.Shipped
	}
	if c := change.Conclusion; c != nil && c.Verdict != "" {
		details["verdict"] = c.Verdict
	}
	if c := change.Conclusion; c != nil && len(c.Objections) > 0 {
		details["objections"] = c.Objections
	}
	if len(details) > 0 {
		event.Details = details
	}
	return audit(ctx, tx, event)
}

func start(ctx context.Context, tx pgx.Tx, e *experiment.Experiment) error {
	def := &e.Current.Definition
	pins := map[string]int32{}
	for _, m := range def.Metrics {
		var revision int32
		var archived bool
		if err := tx.QueryRow(ctx, `SELECT revision, archived FROM metrics WHERE key = $1 FOR SHARE`, m.Metric).Scan(&revision, &archived); err != nil {
			return err // It exists: no metric is ever deleted, and creation checked it.
		}
		if archived {
			return experiment.Errorf(experiment.ErrPrecondition, "METRIC_ARCHIVED", "the metric %q is archived", m.Metric)
		}
		pins[m.Metric] = revision
	}
	encoded, err := json.Marshal(pins)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, `UPDATE experiments SET pins = $2, plan_hash = $3, start_time = update_time WHERE id = $1`,
		e.ID, string(encoded), def.SealPlan(pins)); err != nil {
		return err
	}
	if err := coverStart(ctx, tx, e); err != nil {
		return err
	}
	return resizeSlot(ctx, tx, e, def.TrafficBuckets())
}

func conclude(ctx context.Context, tx pgx.Tx, e *experiment.Experiment, change StateChange) error {
	if err := e.Current.Definition.CheckShipped(change.Shipped); err != nil {
		return err // It was removed meanwhile.
	}
	conclusion, err := json.Marshal(change.Conclusion)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE experiments SET shipped_variant = $2, rationale = $3, conclusion = $4, conclude_time = update_time WHERE id = $1`,
		e.ID, change.Shipped, change.Rationale, string(conclusion)); err != nil {
		return err
	}
	return resizeSlot(ctx, tx, e, 0)
}

// Transitions lists an experiment's changes of state in the order of time.
func (db *DB) Transitions(ctx context.Context, id int32) ([]experiment.Transition, error) {
	rows, err := db.definitions.Query(ctx, `SELECT state, time FROM experiment_transitions WHERE experiment_id = $1 ORDER BY version`, id)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[experiment.Transition])
	return list, interpret(err)
}

// checkTransitions refuses to resume an experiment that has changed its state too
// often. To pause, conclude and archive it is always possible.
func checkTransitions(ctx context.Context, tx pgx.Tx, e *experiment.Experiment) error {
	var n int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM experiment_transitions WHERE experiment_id = $1`, e.ID).Scan(&n); err != nil {
		return err
	}
	return experiment.CheckTransitions(e.Key, n)
}

func insertTransition(ctx context.Context, tx pgx.Tx, id int32, state experiment.State) error {
	_, err := tx.Exec(ctx, `INSERT INTO experiment_transitions (experiment_id, version, state, time)
		SELECT id, version, $2, update_time FROM experiments WHERE id = $1`, id, state)
	return err
}
