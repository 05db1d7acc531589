// One call to an API, by the library that is named: all that a bot would write.
const [library, url] = process.argv.slice(2);
const calls = {
  https: async () => {
    const https = await import("node:https");
    await new Promise((done, fail) => {
      https.get(url, (answer) => answer.resume().on("end", done)).on("error", fail);
    });
  },
  fetch: async () => (await fetch(url)).text(),
  undici: async () => (await (await import("undici")).request(url)).body.text(),
  axios: async () => (await import("axios")).default.get(url),
};
await calls[library]();
