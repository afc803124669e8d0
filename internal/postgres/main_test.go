package postgres_test

import (
	"os"
	"testing"

	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }
