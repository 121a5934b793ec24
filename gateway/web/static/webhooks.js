// The account's URLs, by the methods of the API and with the login that the browser asks for.
"use strict";

const urls = document.getElementById("urls");
const result = document.getElementById("result");

// Its answer; throws an Error for any other than 200.
async function call(method, request) {
  const response = await fetch(urls.dataset.api + method, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    credentials: "same-origin",
  });
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(`${response.status} ${answer.Message}`);
  }
  return answer;
}

// All that is shown is set as text: none of it is ever read as HTML.
function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function button(text, act) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      result.textContent = await act();
    } catch (error) {
      result.textContent = String(error);
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

function state(webhook) {
  if (webhook.Disabled) {
    return `disabled since ${webhook.Disabled}: ${webhook.Error}`;
  }
  return webhook.FailingSince ? `failing since ${webhook.FailingSince}: ${webhook.Error}` : "works, or was not called yet";
}

function row(webhook) {
  const made = document.createElement("div");
  made.append(
    element("h2", webhook.URL),
    element("p", `${webhook.Events.join(", ")} (${webhook.Format}${webhook.Signed ? ", signed" : ""})`),
    element("p", state(webhook)),
    button("Test", async () => {
      const tried = await call("WebhookTest", { URL: webhook.URL, Event: webhook.Events[0] });
      const status = tried.Code ? `status ${tried.Code}` : "no answer";
      const lines = [`${tried.Event}: ${status}, ${tried.Duration.toFixed(3)} s`, tried.Error, tried.Response, tried.Payload];
      return lines.filter((line) => line).join("\n\n");
    }),
  );
  if (webhook.Disabled) {
    made.append(
      " ",
      button("Enable", async () => {
        await call("WebhookEnable", { URL: webhook.URL });
        await show();
        return `${webhook.URL} is called again`;
      }),
    );
  }
  return made;
}

async function show() {
  const rows = (await call("WebhookList", {})).Webhooks.map(row);
  urls.replaceChildren(...(rows.length ? rows : [element("p", "Your account has none.")]));
}

show().catch((error) => {
  result.textContent = String(error);
});
