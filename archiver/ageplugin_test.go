package archiver

import (
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/pgstow/pgstow/internal/testenv"
)

// pluginName is that of a plugin which this test binary plays under the name
// that age, and pgstow, look for in the PATH.
const pluginName = "pgstowtest"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "age-plugin-"+pluginName {
		os.Exit(pluginMain())
	}
	testenv.Main(m)
}

func pluginMain() int {
	p, err := plugin.New(pluginName)
	if err != nil {
		return 1
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) {
		r, err := age.ParseX25519Recipient(string(data))
		return pluginRecipient{r}, err
	})
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		id, err := age.ParseX25519Identity(string(data))
		return pluginIdentity{id}, err
	})
	return p.Main()
}

// The plugin's parts of a header are X25519's under another name.
type pluginRecipient struct{ *age.X25519Recipient }

func (r pluginRecipient) Wrap(key []byte) ([]*age.Stanza, error) {
	list, err := r.X25519Recipient.Wrap(key)
	for _, s := range list {
		s.Type = pluginName
	}
	return list, err
}

type pluginIdentity struct{ *age.X25519Identity }

func (i pluginIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	var own []*age.Stanza
	for _, s := range stanzas {
		if s.Type == pluginName {
			own = append(own, &age.Stanza{Type: "X25519", Args: s.Args, Body: s.Body})
		}
	}
	return i.X25519Identity.Unwrap(own)
}

// pluginKeys are a recipient and an identity of the plugin, which is then in the
// PATH.
func pluginKeys(t *testing.T) keys {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "age-plugin-"+pluginName)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "identity")
	if err := os.WriteFile(path, []byte(plugin.EncodeIdentity(pluginName, []byte(id.String()))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return keys{plugin.EncodeRecipient(pluginName, []byte(id.Recipient().String())), path}
}
