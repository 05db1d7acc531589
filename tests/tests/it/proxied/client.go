// Calls URLs as any bot does: the version, the status, and what it was told.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	for _, url := range os.Args[1:] {
		answer, err := http.Get(url)
		if err != nil {
			log.Fatal(err)
		}
		var told struct{ Key, Uri string }
		if err := json.NewDecoder(answer.Body).Decode(&told); err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
		if told.Key == "" {
			told.Key = told.Uri
		}
		fmt.Println(answer.Proto, answer.StatusCode, told.Key)
	}
}
