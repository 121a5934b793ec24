// Sends the form in place and shows the answer. Without this script the form itself works, on a page of its own.
"use strict";

const SHOWN = 200000; // characters

const form = document.getElementById("try");
const answer = document.getElementById("answer");
const statusLine = document.getElementById("status");
const body = document.getElementById("body");

function show(status, text) {
  statusLine.textContent = status;
  body.textContent = text.length > SHOWN ? text.slice(0, SHOWN) + "\n..." : text;
  answer.hidden = false;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      credentials: "same-origin",
    });
    let text = await response.text();
    if ((response.headers.get("Content-Type") || "").startsWith("application/json")) {
      try {
        // IDs may be larger than what JavaScript's numbers hold exactly: lay the text out, don't parse it.
        JSON.parse(text);
        text = layOut(text);
      } catch {
        // shown as it came
      }
    }
    show(`${response.status} ${response.statusText}`, text);
  } catch (error) {
    show("no answer", String(error));
  } finally {
    button.disabled = false;
  }
});

// Valid JSON without white space, indented; every number and string stays as it was written.
function layOut(json) {
  const tokens = json.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g);
  let depth = 0;
  let out = "";
  tokens.forEach((token, i) => {
    const empty = (token === "{" && tokens[i + 1] === "}") || (token === "[" && tokens[i + 1] === "]");
    const closesEmpty = (token === "}" && tokens[i - 1] === "{") || (token === "]" && tokens[i - 1] === "[");
    if ("}]".includes(token) && !closesEmpty) {
      depth -= 1;
      out += "\n" + "  ".repeat(depth);
    }
    out += token;
    if (token === ":") {
      out += " ";
    } else if (token === "," || ("{[".includes(token) && !empty)) {
      depth += token === "," ? 0 : 1;
      out += "\n" + "  ".repeat(depth);
    }
  });
  return out;
}
