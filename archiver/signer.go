package archiver

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Signer signs manifests and records. It may be used by several goroutines.
type Signer interface {
	// Sign makes the signature of a message, as `ssh-keygen -Y sign -n pgstow` does.
	Sign(message []byte) (armored []byte, err error)
	// Fingerprint is that of the public key, as `ssh-keygen -l` prints it.
	Fingerprint() string
}

// AgentKey asks OpenSigner for the only key of the SSH agent.
const AgentKey = "agent"

// OpenSigner opens a key to sign with: a private key file without a passphrase,
// or, when path is a public key file or AgentKey, a key that the SSH agent
// behind socket (SSH_AUTH_SOCK) holds. The key has signed once when it returns: one that
// cannot be used shows before anything is done, not after it.
func OpenSigner(path, socket string) (Signer, error) {
	s, err := openSigner(path, socket)
	if err != nil {
		return nil, fmt.Errorf("%w: signing key: %w", ErrUsage, err)
	}
	if _, err := s.Sign([]byte("pgstow: can this key be used?\n")); err != nil {
		return nil, fmt.Errorf("%w: signing key %s: %w", ErrUsage, path, err)
	}
	return s, nil
}

// maxKeyFile is more than any key has.
const maxKeyFile = 64 << 10

func openSigner(path, socket string) (Signer, error) {
	if path == AgentKey {
		return openAgent(socket, nil)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(raw)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		return newKeySigner(path, key)
	case errors.As(err, &locked):
		return nil, fmt.Errorf("%s has a passphrase, and nobody is there to type it; add it to an agent (`ssh-add %s`) and name its public key file instead", path, path)
	}
	public, _, _, _, publicErr := ssh.ParseAuthorizedKey(raw)
	if publicErr != nil {
		return nil, fmt.Errorf("%s is neither a private key of OpenSSH nor a public one (%w); make one with `ssh-keygen -t ed25519 -f FILE`", path, err)
	}
	if why := unsupportedKey(public); why != "" {
		return nil, fmt.Errorf("%s: %s", path, why)
	}
	return openAgent(socket, public)
}

// signWith makes the armored signature of a message and compares it with the
// key: one that does not verify is worse than none.
func signWith(key ssh.PublicKey, message []byte, sign func(input []byte) (*ssh.Signature, error)) ([]byte, error) {
	input, err := sshsigInput(SignatureNamespace, "", sshsigHash, message)
	if err != nil {
		return nil, err
	}
	signature, err := sign(input)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	armored := armorSSHSIG(key, signature)
	parsed, err := parseSSHSIG(armored)
	if err == nil {
		err = parsed.verify(message)
	}
	if err != nil {
		return nil, fmt.Errorf("sign: the key's signature does not verify: %w", err)
	}
	return armored, nil
}

// keySigner is a key in memory.
type keySigner struct{ key ssh.Signer }

func newKeySigner(path string, key ssh.Signer) (Signer, error) {
	if why := unsupportedKey(key.PublicKey()); why != "" {
		return nil, fmt.Errorf("%s: %s", path, why)
	}
	return keySigner{key}, nil
}

func (s keySigner) Fingerprint() string { return ssh.FingerprintSHA256(s.key.PublicKey()) }

func (s keySigner) Sign(message []byte) ([]byte, error) {
	return signWith(s.key.PublicKey(), message, func(input []byte) (*ssh.Signature, error) {
		if by, ok := s.key.(ssh.AlgorithmSigner); ok && s.key.PublicKey().Type() == ssh.KeyAlgoRSA {
			return by.SignWithAlgorithm(rand.Reader, input, ssh.KeyAlgoRSASHA512)
		}
		return s.key.Sign(rand.Reader, input)
	})
}

// How long an agent may take: to answer, and to sign, which somebody may have to
// confirm.
const (
	agentTime     = 10 * time.Second
	agentSignTime = 2 * time.Minute
)

// agentSigner is a key of an agent. It is asked anew for each signature, so that
// no connection is held while a dump runs.
type agentSigner struct {
	socket string
	key    ssh.PublicKey
}

// openAgent finds a key in the agent; nil is the only one there is.
func openAgent(socket string, key ssh.PublicKey) (Signer, error) {
	if socket == "" {
		return nil, errors.New("no SSH agent: SSH_AUTH_SOCK is not set; start one, or name a private key file without a passphrase")
	}
	s := agentSigner{socket: socket, key: key}
	var held []*agent.Key
	err := s.ask(agentTime, func(a agent.ExtendedAgent) (err error) {
		held, err = a.List()
		return err
	})
	if err != nil {
		return nil, err
	}
	var usable []ssh.PublicKey
	for _, k := range held {
		switch public, err := ssh.ParsePublicKey(k.Blob); {
		case err != nil || unsupportedKey(public) != "":
		case key != nil && bytes.Equal(k.Blob, key.Marshal()):
			return s, nil
		default:
			usable = append(usable, public)
		}
	}
	switch {
	case key != nil:
		return nil, fmt.Errorf("the SSH agent does not hold %s; add it with `ssh-add`", ssh.FingerprintSHA256(key))
	case len(usable) == 0:
		return nil, errors.New("the SSH agent holds no key that signs; add one with `ssh-add`")
	case len(usable) > 1:
		return nil, fmt.Errorf("the SSH agent holds %d keys; name the public key file of the one to sign with", len(usable))
	}
	s.key = usable[0]
	return s, nil
}

// ask talks to the agent for at most so long.
func (s agentSigner) ask(limit time.Duration, question func(agent.ExtendedAgent) error) (err error) {
	conn, err := net.DialTimeout("unix", s.socket, limit)
	if err != nil {
		return fmt.Errorf("ask the SSH agent: %w; SSH_AUTH_SOCK names no agent that answers", err)
	}
	defer func() {
		if closeErr := conn.Close(); closeErr != nil && err == nil {
			err = fmt.Errorf("ask the SSH agent: %w", closeErr)
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("ask the SSH agent: %w", err)
	}
	if err := question(agent.NewClient(conn)); err != nil {
		return fmt.Errorf("ask the SSH agent: %w", err)
	}
	return nil
}

func (s agentSigner) Fingerprint() string { return ssh.FingerprintSHA256(s.key) }

func (s agentSigner) Sign(message []byte) ([]byte, error) {
	return signWith(s.key, message, func(input []byte) (signature *ssh.Signature, err error) {
		var flags agent.SignatureFlags
		if s.key.Type() == ssh.KeyAlgoRSA {
			flags = agent.SignatureFlagRsaSha512
		}
		err = s.ask(agentSignTime, func(a agent.ExtendedAgent) error {
			signature, err = a.SignWithFlags(s.key, input, flags)
			return err
		})
		return signature, err
	})
}
