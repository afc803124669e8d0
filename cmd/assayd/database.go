package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/localpg"
	"github.com/assayhq/assay/internal/postgres"
)

// database is where a server keeps its data.
type database struct {
	url    string
	pepper experiment.Pepper
	local  *localpg.Server // Nil with a database of the operator's.

	// snapshot is the file with the last catalog, to start from while the
	// database is down. The private one is started with the server: it has none.
	snapshot string
}

// openDatabase starts the private Postgres, or takes the one that the settings
// name. The caller calls close.
func openDatabase(ctx context.Context, s *settings) (*database, error) {
	pepper, err := s.givenPepper()
	if err != nil {
		return nil, err
	}
	if s.databaseURL != "" {
		if pepper == nil {
			return nil, errors.New("a database URL needs a pepper: set ASSAY_PEPPER or --pepper-file to a secret that you keep for as long as the data")
		}
		return &database{url: s.databaseURL, pepper: pepper, snapshot: filepath.Join(s.dataDir, "catalog.json.gz")}, nil
	}
	local, err := localpg.Start(ctx, localpg.Config{DataDir: s.dataDir})
	if err != nil {
		return nil, err
	}
	if pepper == nil {
		if pepper, err = storedPepper(filepath.Join(s.dataDir, "pepper")); err != nil {
			return nil, errors.Join(err, local.Stop())
		}
	}
	return &database{url: local.URL(), pepper: pepper, local: local}, nil
}

// keep starts the private Postgres again when it ends, until ctx does. It
// recovers what it had committed, and its address stays the same. A start that
// fails is the operator's to look at, and ends the server.
func (d *database) keep(ctx context.Context, dataDir string, log *slog.Logger) error {
	if d.local == nil {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.local.Done():
		}
		log.ErrorContext(ctx, "the private Postgres ended and is started again", "error", d.local.Err())
		d.local.Stop() // It has ended; this gives its directory back.
		local, err := localpg.Start(ctx, localpg.Config{DataDir: dataDir})
		switch {
		case ctx.Err() != nil:
			if err == nil {
				return local.Stop()
			}
			return nil
		case err != nil:
			return fmt.Errorf("the private Postgres ended and did not start again: %w", err)
		}
		d.local = local
	}
}

func (d *database) close() error {
	if d.local == nil {
		return nil
	}
	return d.local.Stop()
}

// storedPepper reads the pepper of a data directory, which it makes if there
// is none. The file appears whole or not at all.
func storedPepper(path string) (experiment.Pepper, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return parsePepper(string(text), path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	var secret [32]byte
	rand.Read(secret[:])
	text = []byte(hex.EncodeToString(secret[:]) + "\n")
	if err := writeFile(path, text); err != nil {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	return parsePepper(string(text), path)
}

func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pepper-") // Mode 0600.
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// runMigrate brings a database up to date without serving.
func runMigrate(ctx context.Context, args []string, e env) error {
	s, err := parseSettings("migrate", args, e)
	if err != nil {
		return err
	}
	if s.databaseURL != "" {
		return postgres.Migrate(ctx, s.databaseURL)
	}
	local, err := localpg.Start(ctx, localpg.Config{DataDir: s.dataDir})
	if err != nil {
		return err
	}
	return errors.Join(postgres.Migrate(ctx, local.URL()), local.Stop())
}
