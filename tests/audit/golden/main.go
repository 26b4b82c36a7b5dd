// Prints a signed note made by golang.org/x/mod/sumdb/note, and checks the one on standard input, if any.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	const name = "govern.example/census"
	const text = name + "\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n"
	// A fixed source of randomness: this key signs nothing but the golden file.
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("govern golden key", 2)), name)
	fail(err)
	signer, err := note.NewSigner(skey)
	fail(err)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	fail(err)
	given, err := io.ReadAll(os.Stdin)
	fail(err)
	if len(given) > 0 {
		verifier, err := note.NewVerifier(vkey)
		fail(err)
		_, err = note.Open(given, note.VerifierList(verifier))
		fail(err)
		fmt.Fprintln(os.Stderr, "verified by golang.org/x/mod/sumdb/note")
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	fail(encoder.Encode(map[string]string{"signer_key": skey, "verifier_key": vkey, "note": string(signed)}))
}
