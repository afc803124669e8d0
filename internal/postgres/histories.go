package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// A page of histories is bounded, so that reading it ends well within the time of
// a statement. Variables, for tests.
var (
	pageExperiments = 1000
	pageBytes       = 8 << 20 // Of definitions and pins, or of revisions; of one experiment at least.
)

// Revisions are asked for so many at once, according to their size: one from before
// terms were stored is read whole, and may take a megabyte and more.
const (
	firstFetch = 50
	mostFetch  = 500
	termsGroup = 20_000 // That one statement sorts.
)

// Histories returns what assignment needs of experiments whose version differs
// from that of the known one, by key, as of one moment. It reads what is new of
// those that are known, and not what cannot have changed.
//
// It returns a page of them, and says whether there are more. With the page among
// the known ones, the next call goes on from there. A page without more, with all
// that is known, is the whole catalog at one moment.
//
// An experiment that cannot be decoded is returned with its fault, and one that
// has more revisions than the page takes with the version 0 and those read so far.
//
// It also learns which subjects were erased, for what else a server holds in memory.
func (db *DB) Histories(ctx context.Context, known map[string]*experiment.History) (list []experiment.History, more bool, err error) {
	err = pgx.BeginTxFunc(ctx, db.definitions, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := db.learnErased(ctx, tx); err != nil {
			return err
		}
		ids, err := changedSince(ctx, tx, known)
		if err != nil || len(ids) == 0 {
			return err
		}
		fitting, err := fitting(ctx, tx, ids)
		if err != nil {
			return err
		}
		p, err := newHistoryPage(ctx, tx, fitting, known)
		if err != nil {
			return err
		}
		if err := p.fill(); err != nil {
			return err
		}
		list, more = p.histories, p.cut || len(fitting) < len(ids)
		return nil
	})
	return list, more, interpret(err)
}

// changedSince returns the ids of the experiments whose version is not the known
// one, in order. All versions come here to be compared: sending the known ones to be
// joined there took 70 ms with 10,000 experiments, this takes a tenth.
func changedSince(ctx context.Context, tx pgx.Tx, known map[string]*experiment.History) ([]int32, error) {
	rows, err := tx.Query(ctx, `SELECT id, key, version FROM experiments`)
	if err != nil {
		return nil, err
	}
	var ids []int32
	var id int32
	var key string
	var version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &key, &version}, func() error {
		if have := known[key]; have == nil || have.Experiment.Version != version {
			ids = append(ids, id)
		}
		return nil
	})
	slices.Sort(ids)
	return ids, err
}

// fitting returns the first of the ids, whose current definitions and pins fill a
// page.
func fitting(ctx context.Context, tx pgx.Tx, ids []int32) ([]int32, error) {
	ids = ids[:min(len(ids), pageExperiments)]
	if len(ids) == 1 {
		return ids, nil
	}
	rows, err := tx.Query(ctx, `SELECT octet_length(r.definition::text) + octet_length(r.allocation::text)
			+ 64 * (SELECT count(*) FROM overrides o WHERE o.experiment_id = e.id AND o.end_time IS NULL)
		FROM experiments e JOIN experiment_revisions r ON r.experiment_id = e.id AND r.revision = e.revision
		WHERE e.id = ANY($1) ORDER BY e.id`, ids)
	if err != nil {
		return nil, err
	}
	sizes, err := pgx.CollectRows(rows, pgx.RowTo[int])
	sum := 0
	for i, size := range sizes {
		if sum += size; sum > pageBytes && i > 0 {
			return ids[:i], err
		}
	}
	return ids, err
}

// historyPage is a page while it is read: the experiments in the order of their
// ids.
type historyPage struct {
	ctx       context.Context
	tx        pgx.Tx
	histories []experiment.History
	cut       bool // It ended sooner, perhaps before all revisions of the last one.

	decoded   map[string]storedTerms // By how they are stored, of the experiment with the id.
	decodedOf int32
}

// newHistoryPage reads the experiments as they are now, beside what is known of
// their past.
func newHistoryPage(ctx context.Context, tx pgx.Tx, ids []int32, known map[string]*experiment.History) (*historyPage, error) {
	rows, err := tx.Query(ctx, `SELECT `+experimentColumns+`
		FROM experiments e JOIN experiment_revisions r ON r.experiment_id = e.id AND r.revision = e.revision
		WHERE e.id = ANY($1) ORDER BY e.id`, ids)
	if err != nil {
		return nil, err
	}
	p := &historyPage{ctx: ctx, tx: tx}
	p.histories, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (experiment.History, error) {
		var undecodable *undecodableError
		e, err := scanExperiment(row)
		if errors.As(err, &undecodable) {
			return experiment.History{Experiment: *e, Fault: err.Error()}, nil
		}
		if err != nil {
			return experiment.History{}, err
		}
		h := experiment.History{Experiment: *e}
		if past := known[e.Key]; past.IsPastOf(e) {
			h.Transitions, h.Slots = slices.Clip(past.Transitions), slices.Clip(past.Slots)
			h.Overrides, h.Pinned = past.Overrides, past.Pinned
			if !past.Experiment.StartTime.IsZero() { // It may not have run with those of a draft.
				h.Revisions = slices.Clip(past.Revisions)
			}
		}
		return h, nil
	})
	return p, err
}

func (p *historyPage) fill() error {
	for _, fill := range []func() error{p.fillTerms, p.fillTransitions, p.fillSlots, p.fillCoverages, p.fillOverrides} {
		if err := fill(); err != nil {
			return err
		}
	}
	if p.cut {
		h := &p.histories[len(p.histories)-1]
		if n := len(h.Revisions); h.Fault == "" && h.Revisions[n-1].Number < h.Experiment.Current.Number {
			h.Experiment.Version = 0
		}
	}
	return nil
}

// of returns the history of the experiment with the id, and nil for one that cannot
// be decoded.
func (p *historyPage) of(id int32) *experiment.History {
	i, _ := slices.BinarySearchFunc(p.histories, id, func(h experiment.History, id int32) int { return cmp.Compare(h.Experiment.ID, id) })
	if h := &p.histories[i]; h.Fault == "" {
		return h
	}
	return nil
}

// ids lists the experiments that can be decoded, each with the number that held
// returns.
func (p *historyPage) ids(held func(h *experiment.History) int) (ids, numbers []int32) {
	for i := range p.histories {
		if h := &p.histories[i]; h.Fault == "" {
			ids, numbers = append(ids, h.Experiment.ID), append(numbers, int32(held(h)))
		}
	}
	return ids, numbers
}

// fillTerms adds the revisions that are not known: of an experiment that has
// started those with which it has run, of another the current one. Where they fill
// the page, it ends with that experiment.
func (p *historyPage) fillTerms() error {
	read, group := 0, 0
	ids, after := p.ids(func(h *experiment.History) int {
		if n := len(h.Revisions); n > 0 {
			return int(h.Revisions[n-1].Number)
		}
		return 0
	})
	for from := 0; from < len(ids) && !p.cut; from = group {
		for rows := int32(0); group < len(ids) && rows < termsGroup; group++ {
			rows += p.of(ids[group]).Experiment.Current.Number - after[group]
		}
		n, err := p.readTerms(ids[from:group], after[from:group], pageBytes-read)
		if err != nil {
			return err
		}
		if read += n; read > pageBytes && !p.cut {
			p.endWith(ids[group-1])
		}
	}
	for i := range p.histories {
		h := &p.histories[i]
		h.Revisions = append([]experiment.Terms(nil), h.Revisions...) // No larger than need be, as it stays.
	}
	return nil
}

// readTerms reads the terms of the revisions of experiments after some, and returns
// their bytes. Where these are more than there is room for, it ends the page.
func (p *historyPage) readTerms(ids, after []int32, room int) (read int, err error) {
	// A cursor, as what is not asked for is neither decompressed nor sent.
	if _, err := p.tx.Exec(p.ctx, `DECLARE terms CURSOR FOR
		WITH held AS MATERIALIZED (
			SELECT e.id, CASE WHEN k.after > 0 THEN k.after ELSE `+firstLive+` - 1 END AS revision
			FROM unnest($1::integer[], $2::integer[]) AS k (id, after) JOIN experiments e ON e.id = k.id)
		SELECT r.experiment_id, r.revision, r.phase, r.create_time, r.terms,
			CASE WHEN r.terms IS NULL THEN r.definition END, CASE WHEN r.terms IS NULL THEN r.allocation END
		FROM held JOIN experiment_revisions r ON r.experiment_id = held.id AND r.revision > held.revision
		ORDER BY r.experiment_id, r.revision`, ids, after); err != nil {
		return 0, err
	}
	for wanted := firstFetch; ; {
		n, bytes, last, err := p.fetchTerms(wanted)
		if err != nil {
			return 0, err
		}
		if read += bytes; n < wanted {
			break
		}
		if read > room {
			p.endWith(last)
			break
		}
		wanted = max(1, min(mostFetch, (room-read)*n/bytes))
	}
	_, err = p.tx.Exec(p.ctx, `CLOSE terms`)
	return read, err
}

// firstLive is the number of the first revision that exposures can be to: the one
// with which the experiment started, or before that the current one.
const firstLive = `coalesce((SELECT max(f.revision) FROM experiment_revisions f WHERE f.experiment_id = e.id AND f.create_time <= e.start_time), e.revision)`

// fetchTerms reads the next revisions from the cursor: how many there were, of how
// many bytes, and the experiment of the last.
func (p *historyPage) fetchTerms(wanted int) (n, bytes int, last int32, err error) {
	rows, err := p.tx.Query(p.ctx, fmt.Sprintf(`FETCH %d FROM terms`, wanted))
	if err != nil {
		return 0, 0, 0, err
	}
	var number, phase int32
	var created time.Time
	var terms, definition, allocation []byte
	_, err = pgx.ForEachRow(rows, []any{&last, &number, &phase, &created, &terms, &definition, &allocation}, func() error {
		n, bytes = n+1, bytes+64+len(terms)+len(definition)+len(allocation)
		h := p.of(last)
		if h == nil {
			return nil
		}
		t, err := p.terms(last, number, terms, definition, allocation)
		if err != nil {
			h.Fault = err.Error()
			return nil
		}
		h.Revisions = experiment.AppendTerms(h.Revisions, experiment.Terms{Number: number, Phase: phase, CreateTime: created, Traffic: t.Traffic, Rules: t.Rules})
		return nil
	})
	return n, bytes, last, err
}

// terms returns what is stored of a revision's terms, or would be by this release.
// Those of one experiment that are stored alike are decoded once, and shared.
func (p *historyPage) terms(id, number int32, terms, definition, allocation []byte) (storedTerms, error) {
	if terms == nil {
		r := experiment.Revision{Number: number}
		err := decodeRevision(&r, definition, allocation)
		if err == nil {
			terms, err = encodeTerms(&r)
		}
		if err != nil {
			return storedTerms{}, err
		}
	}
	if p.decodedOf != id {
		p.decoded, p.decodedOf = map[string]storedTerms{}, id
	}
	if t, ok := p.decoded[string(terms)]; ok {
		return t, nil
	}
	t, err := decodeTerms(number, terms)
	p.decoded[string(terms)] = t
	return t, err
}

// endWith cuts the page off after an experiment.
func (p *historyPage) endWith(id int32) {
	i := slices.IndexFunc(p.histories, func(h experiment.History) bool { return h.Experiment.ID == id })
	p.histories, p.cut = p.histories[:i+1], true
}

// fillTransitions adds the changes of state that are not known: none is ever
// changed.
func (p *historyPage) fillTransitions() error {
	ids, held := p.ids(func(h *experiment.History) int { return len(h.Transitions) })
	rows, err := p.tx.Query(p.ctx, `SELECT k.id, t.state, t.time FROM unnest($1::integer[], $2::integer[]) AS k (id, held),
			LATERAL (SELECT version, state, time FROM experiment_transitions WHERE experiment_id = k.id ORDER BY version OFFSET k.held) t
		ORDER BY k.id, t.version`, ids, held)
	if err != nil {
		return err
	}
	var id int32
	var t experiment.Transition
	_, err = pgx.ForEachRow(rows, []any{&id, &t.State, &t.Time}, func() error {
		h := p.of(id)
		h.Transitions = append(h.Transitions, t)
		return nil
	})
	return err
}

// fillSlots adds the slots of experiments in layers that are not known, and reads
// the last one again if it had not ended: nothing else of it changes.
func (p *historyPage) fillSlots() error {
	for i := range p.histories {
		if h, n := &p.histories[i], len(p.histories[i].Slots); n > 0 && h.Slots[n-1].EndTime.IsZero() {
			h.Slots = slices.Clip(h.Slots[:n-1])
		}
	}
	ids, held := p.ids(func(h *experiment.History) int { return len(h.Slots) })
	rows, err := p.tx.Query(p.ctx, `SELECT k.id, s.salt, s.from_time, s.end_time, s.ranges FROM unnest($1::integer[], $2::integer[]) AS k (id, held),
			LATERAL (SELECT s.version, l.salt, s.from_time, s.end_time,
					json_agg(json_build_object('from', s.from_bucket, 'to', s.to_bucket) ORDER BY s.from_bucket) AS ranges
				FROM layer_slots s JOIN layers l ON l.id = s.layer_id WHERE s.experiment_id = k.id
				GROUP BY s.version, l.salt, s.from_time, s.end_time ORDER BY s.version OFFSET k.held) s
		ORDER BY k.id, s.version`, ids, held)
	if err != nil {
		return err
	}
	var id int32
	var salt string
	var from time.Time
	var end *time.Time
	var ranges []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &salt, &from, &end, &ranges}, func() error {
		s := experiment.SlotPeriod{Slot: experiment.Slot{Salt: salt}, FromTime: from}
		if end != nil {
			s.EndTime = *end
		}
		h := p.of(id)
		if err := json.Unmarshal(ranges, &s.Ranges); err != nil {
			return fmt.Errorf("experiment %s: slots: %w", h.Experiment.Key, err)
		}
		h.Slots = append(h.Slots, s)
		return nil
	})
	return err
}

// fillCoverages adds the holdouts that cover the experiments or did. They are few,
// and each may have got another end.
func (p *historyPage) fillCoverages() error {
	ids, _ := p.ids(func(*experiment.History) int { return 0 })
	rows, err := p.tx.Query(p.ctx, `SELECT c.experiment_id, c.from_time, h.id, h.key, h.kind, h.salt, h.share, h.end_time
		FROM holdout_coverage c JOIN holdouts h ON h.id = c.holdout_id WHERE c.experiment_id = ANY($1) ORDER BY c.experiment_id, h.key`, ids)
	if err != nil {
		return err
	}
	var id int32
	var from time.Time
	var end *time.Time
	var h experiment.Holdout
	_, err = pgx.ForEachRow(rows, []any{&id, &from, &h.ID, &h.Key, &h.Kind, &h.Salt, &h.Share, &end}, func() error {
		c := experiment.Coverage{HoldoutID: h.ID, Holdout: h.Key, Kind: h.Kind, Salt: h.Salt, Buckets: h.Buckets(), FromTime: from}
		if end != nil {
			c.EndTime = *end
		}
		covered := p.of(id)
		covered.Coverages = append(covered.Coverages, c)
		return nil
	})
	return err
}

// fillOverrides reads the pins in force of those experiments where they are others
// than the known ones.
func (p *historyPage) fillOverrides() error {
	ids, _ := p.ids(func(*experiment.History) int { return 0 })
	rows, err := p.tx.Query(p.ctx, `SELECT experiment_id, md5(string_agg(subject_id::text || variant, ' ' ORDER BY subject_id))
		FROM overrides WHERE experiment_id = ANY($1) AND end_time IS NULL GROUP BY experiment_id`, ids)
	if err != nil {
		return err
	}
	pinned := map[int32]string{}
	var id int32
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		pinned[id] = name
		return nil
	}); err != nil {
		return err
	}
	var others []int32
	for _, id := range ids {
		h := p.of(id)
		if h.Pinned == pinned[id] {
			continue
		}
		if h.Pinned, h.Overrides = pinned[id], nil; h.Pinned != "" {
			h.Overrides = map[experiment.SubjectID]string{}
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return nil
	}
	if rows, err = p.tx.Query(p.ctx, `SELECT experiment_id, subject_id, variant FROM overrides
		WHERE experiment_id = ANY($1) AND end_time IS NULL`, others); err != nil {
		return err
	}
	var subject [16]byte
	var variant string
	_, err = pgx.ForEachRow(rows, []any{&id, &subject, &variant}, func() error {
		p.of(id).Overrides[subject] = variant
		return nil
	})
	return err
}
