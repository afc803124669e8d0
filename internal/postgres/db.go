// Package postgres keeps definitions, events and analyses in Postgres.
//
// It promises that what a method reports as done is committed with
// synchronous_commit on, that errors leave it as the kinds of package
// experiment (anything else is a fault), and that one kind of work cannot
// starve another: recording, analysis, definitions and the lookups of assignment
// have pools of their own.
//
// Events are append only. A moment in recorded_time is the world as it was
// known then; [DB.SafeTime] tells the latest such moment that cannot change
// any more. The exception are subjects that are erased ([DB.EraseSubject]): they
// are removed from the past as well. Exposures to holdouts are kept among those to
// experiments, under ids that no experiment has. The schema is written for plain
// Postgres and for Citus alike: see the first migration.
package postgres

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/assayhq/assay/internal/experiment"
)

// DB is a database. Its methods fail with ErrUnavailable until Prepare has
// succeeded once.
type DB struct {
	url      string
	pepper   experiment.Pepper
	prepared atomic.Bool

	definitions *pgxpool.Pool
	recording   *pgxpool.Pool
	analysis    *pgxpool.Pool
	assignment  *pgxpool.Pool

	mu         sync.Mutex
	partitions map[time.Time]bool // Months of outcomes known to have a partition.

	making chan struct{} // Holds one element while a partition is made.

	names knownNames

	repeated atomic.Bool // The last batch of outcomes held known ones.

	removing   chan struct{} // Holds one element while subjects are removed.
	tombstones tombstones
}

// recorderName is the application_name of the connections that write events;
// SafeTime looks for their transactions.
const recorderName = "assay-record"

// statementTimeout bounds every statement of recording and definitions, so
// that a write has committed or failed soon after its caller gave up on it.
const statementTimeout = 15 * time.Second

// analysisTimeout bounds those of analyses and of removals, which read all events of an
// experiment. The server gives up on an analysis after as long, but a connection that
// broke would not tell Postgres.
const analysisTimeout = 10 * time.Minute

// lockTimeout bounds the wait for a lock, of a table or of rows: nothing that this
// program does holds one for so long, so what does is an operator or another program,
// behind whom the connections must not all pile up.
const lockTimeout = 5 * time.Second

// lookupTimeout bounds the lookups of assignment, none of which waits longer.
const lookupTimeout = time.Second

// connectTimeout bounds attempts to connect. Where packets vanish, nothing else
// would end them. For the pools the URL may say otherwise.
const connectTimeout = 5 * time.Second

// New returns the database at url without connecting to it.
func New(url string, pepper experiment.Pepper) (*DB, error) {
	db := &DB{url: url, pepper: pepper, partitions: map[time.Time]bool{},
		making: make(chan struct{}, 1), removing: make(chan struct{}, 1),
		names: knownNames{most: DefaultOutcomeNames, ids: map[string]int32{}, turn: make(chan struct{}, 1)}, tombstones: tombstones{ids: map[experiment.SubjectID]bool{}}}
	var err error
	if db.definitions, err = db.newPool("assay", statementTimeout, nil); err != nil {
		return nil, err
	}
	if db.recording, err = db.newPool(recorderName, statementTimeout, byKey); err != nil {
		db.Close()
		return nil, err
	}
	if db.analysis, err = db.newPool("assay-analyze", analysisTimeout, wholeTables); err != nil {
		db.Close()
		return nil, err
	}
	if db.assignment, err = db.newPool("assay-assign", lookupTimeout, byKey); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// Open returns the database at url, prepared.
func Open(ctx context.Context, url string, pepper experiment.Pepper) (*DB, error) {
	db, err := New(url, pepper)
	if err != nil {
		return nil, err
	}
	if err := db.Prepare(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// Prepare brings the schema up to date and checks that the pepper is the one
// the database was made with. An error that wraps ErrUnavailable may be gone
// the next time; any other is for the operator.
func (db *DB) Prepare(ctx context.Context) error {
	conn, err := db.connect(ctx) // Migrate is patient; whether there is a database shows sooner.
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := Migrate(ctx, db.url); err != nil {
		return err
	}
	if err := db.checkPepper(ctx, conn); err != nil {
		return err
	}
	db.prepared.Store(true)
	return nil
}

func (db *DB) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, db.definitions.Config().ConnConfig)
	return conn, interpret(err)
}

// Ping says whether the database can be reached, within a bounded time.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return interpret(db.definitions.Ping(ctx))
}

// checkPrepared keeps every connection from a database that is not known to
// have this schema and this pepper: subjects hashed with another one must not
// get into it.
func (db *DB) checkPrepared() error {
	if db.prepared.Load() {
		return nil
	}
	return unavailable(errors.New("not prepared yet"))
}

// Close closes the connections, waiting for those in use.
func (db *DB) Close() {
	for _, pool := range []*pgxpool.Pool{db.definitions, db.recording, db.analysis, db.assignment} {
		if pool != nil {
			pool.Close()
		}
	}
}

// poolSize is the number of connections of each pool.
const poolSize = 4

// byKey are settings for statements that look rows up by key. Left to itself,
// Postgres compares a large batch with the events recorded by reading all of
// them.
var byKey = map[string]string{"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

// wholeTables are settings for analyses, which read all events of an
// experiment. Tables that have grown since their statistics were taken look
// small, and a nested loop over them never ends.
var wholeTables = map[string]string{"enable_nestloop": "off", "work_mem": "128MB"}

func (db *DB) newPool(name string, timeout time.Duration, settings map[string]string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(db.url)
	if err != nil {
		return nil, fmt.Errorf("the database URL: %w", err)
	}
	config.MaxConns = poolSize
	config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return db.checkPrepared() }
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	params := config.ConnConfig.RuntimeParams
	maps.Copy(params, settings)
	params["application_name"] = name
	params["timezone"] = "UTC"
	params["synchronous_commit"] = "on"
	params["default_transaction_isolation"] = "read committed"
	params["jit"] = "off" // Compiling an analysis takes longer than running it.
	params["statement_timeout"] = fmt.Sprint(timeout.Milliseconds())
	params["idle_in_transaction_session_timeout"] = fmt.Sprint(timeout.Milliseconds())
	params["lock_timeout"] = fmt.Sprint(min(timeout, lockTimeout).Milliseconds())
	return pgxpool.NewWithConfig(context.Background(), config)
}

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema of the database at url up to date, and refuses one
// that is newer. Servers that start at once wait for each other. Behind a table that
// another holds, such as a long analysis of another server, it gives up soon: whoever
// came after it would wait for both.
func Migrate(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("the database URL: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	config.RuntimeParams["lock_timeout"] = fmt.Sprint(lockTimeout.Milliseconds())
	sqlDB := stdlib.OpenDB(*config)
	defer sqlDB.Close()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300)) // Every second for 5 minutes.
	if err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, sqlDB, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrating the database: %w", interpret(err))
	}
	return checkVersion(ctx, provider)
}

// checkVersion refuses a schema that a later release has migrated: what this
// one writes could lack what that one relies on. A migration suits the release
// before it, so that servers which are at work meanwhile may go on.
func checkVersion(ctx context.Context, provider *goose.Provider) error {
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrating the database: %w", interpret(err))
	}
	if current > known {
		return fmt.Errorf("the database's schema has version %d, and this release knows those up to %d: start the release that migrated it, or a later one", current, known)
	}
	return nil
}

// checkPepper remembers the first pepper's key id and refuses any other: with
// another pepper, subjects would silently lose their history.
func (db *DB) checkPepper(ctx context.Context, conn *pgx.Conn) error {
	const name = "pepper_key_id"
	if _, err := conn.Exec(ctx,
		`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, db.pepper.KeyID()); err != nil {
		return interpret(err)
	}
	var stored string
	if err := conn.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&stored); err != nil {
		return interpret(err)
	}
	if stored != db.pepper.KeyID() {
		return fmt.Errorf("the pepper's key id is %s, but the database was made with %s: start with the pepper that it was made with", db.pepper.KeyID(), stored)
	}
	return nil
}

// ErrBadData is wrapped by the error of a statement that its data alone caused:
// the same data would fail again.
var ErrBadData = errors.New("the database refused the data")

// unavailableCodes are the beginnings of the SQLSTATEs after which the same
// statement may succeed later.
var unavailableCodes = []string{
	"08",    // Connection lost.
	"25006", // A standby.
	"25P03", // The transaction was idle for too long.
	"40",    // Deadlock or serialisation failure, retries spent.
	"53",    // Out of disk, memory or connections.
	"55P03", // Lock timeout.
	"57",    // Statement timeout, connection ended, shutting down.
	"58",    // The system under Postgres failed.
}

// interpret turns a driver error into one of the kinds of package experiment
// where the caller can act on it, by SQLSTATE alone. Whatever forbids a
// connection, the database that was there at the start may be there again.
func interpret(err error) error {
	if err == nil {
		return nil
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return unavailable(err)
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case slices.ContainsFunc(unavailableCodes, func(prefix string) bool { return strings.HasPrefix(pg.Code, prefix) }):
			return unavailable(err)
		case strings.HasPrefix(pg.Code, "22"), pg.Code == "23514": // Data exception, check violation.
			return fmt.Errorf("%w: %w", ErrBadData, err)
		}
		return err
	}
	if pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) ||
		pgconn.SafeToRetry(err) || isBroken(err) {
		return unavailable(err)
	}
	return err
}

// isBroken says whether err is a connection that broke in the middle.
func isBroken(err error) bool {
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network)
}

func unavailable(err error) error {
	return fmt.Errorf("%w (%w)", experiment.Errorf(experiment.ErrUnavailable, "DATABASE_UNAVAILABLE",
		"the database cannot be reached or is overloaded"), err)
}

// inTx runs f in a transaction of its own and commits it. A deadlock or a
// serialisation failure is tried again, twice.
func inTx(ctx context.Context, pool *pgxpool.Pool, f func(pgx.Tx) error) error {
	for attempt := 0; ; attempt++ {
		err := pgx.BeginFunc(ctx, pool, f)
		var pg *pgconn.PgError
		if attempt < 2 && errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01") {
			continue
		}
		return interpret(err)
	}
}
