package s3

import (
	"testing"

	"github.com/pgstow/pgstow/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
