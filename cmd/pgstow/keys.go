package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pgstow/pgstow/archiver"
)

// Flags of keys, which several commands share. What is not given comes from the
// configuration's "keys".
const (
	flagSignKey        = "sign-key"
	flagAllowedSigners = "allowed-signers"
	flagIgnore         = "ignore-signature"
)

func signFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: flagSignKey, Usage: "sign " + what + " with this SSH key: a private key `FILE`, the public key file of one that the SSH agent holds, or agent for the only one it holds"}
}

func allowedSignersFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: flagAllowedSigners, Usage: what + " one of the keys in `FILE` has signed, an allowed_signers file of ssh-keygen"}
}

func ignoreFlag() cli.Flag {
	return &cli.BoolFlag{Name: flagIgnore, Usage: "take it whoever has signed it, and if nobody has"}
}

// signer is the key to sign with; nil without one. p may be nil; a policy that
// asks for signatures does not run without a key.
func (rt *runtime) signer(c *cli.Context, p *policy) (archiver.Signer, error) {
	cfg, err := rt.config()
	if err != nil {
		return nil, err
	}
	path := c.String(flagSignKey)
	if !c.IsSet(flagSignKey) {
		path = cfg.keys.sign
	}
	switch {
	case path != "":
		if path != archiver.AgentKey && !strings.HasSuffix(path, ".pub") {
			rt.warnReadable(path, "key")
		}
		return archiver.OpenSigner(path, os.Getenv("SSH_AUTH_SOCK"))
	case c.IsSet(flagSignKey):
		return nil, usagef("--%s is empty", flagSignKey)
	case p != nil && p.evidence.sign:
		return nil, usagef("policy %s asks for signatures and there is no key: give --%s FILE, or keys: {sign: FILE} in the configuration", p.Name, flagSignKey)
	}
	return nil, nil
}

// trust says whose signatures count: those in the file that was typed, and then
// only those; or the configuration's, which says itself whether others pass.
func (rt *runtime) trust(c *cli.Context) (t archiver.Trust, err error) {
	cfg, err := rt.config()
	if err != nil {
		return t, err
	}
	file := cfg.keys.allowedSigners
	t.Require, t.Ignore = cfg.keys.requireSignature, c.Bool(flagIgnore)
	if c.IsSet(flagAllowedSigners) {
		file, t.Require = c.String(flagAllowedSigners), true
		if file == "" {
			return t, usagef("--%s is empty", flagAllowedSigners)
		}
	}
	if file != "" {
		t.Signers, err = archiver.ReadAllowedSigners(file)
	}
	return t, err
}
