// Opens the page about webhooks as a browser does, presses Test and then Enable of the first URL, and writes as JSON what
// it showed in between. Arguments: the Authorization that the browser sends, then the page's URL.
import vm from "node:vm";

const [authorization, url] = process.argv.slice(2);
const headers = { Authorization: authorization, Origin: new URL(url).origin, "Sec-Fetch-Site": "same-origin" };
const page = await (await fetch(url, { headers })).text();
const script = await (await fetch(new URL(/<script src="([^"]*)" defer>/.exec(page)[1], url), { headers })).text();

class Element {
  constructor(name) {
    Object.assign(this, { name, textContent: "", children: [], dataset: {}, listeners: {}, disabled: false });
  }
  append(...children) {
    this.children.push(...children);
  }
  replaceChildren(...children) {
    this.children = children;
    drawn();
  }
  addEventListener(name, listener) {
    this.listeners[name] = listener;
  }
  get text() {
    return this.textContent + this.children.map((child) => child.text ?? child).join(" | ");
  }
}

let drawn;
const first = new Promise((resolve) => (drawn = resolve));
const elements = { urls: new Element("section"), result: new Element("pre") };
elements.urls.dataset.api = /<section id="urls"[^>]* data-api="([^"]*)"/.exec(page)[1];
vm.runInContext(
  script,
  vm.createContext({
    document: { getElementById: (id) => elements[id], createElement: (name) => new Element(name) },
    fetch: (to, options) => fetch(new URL(to, url), { ...options, headers: { ...options.headers, ...headers } }),
  }),
);
await first;

async function press(text) {
  const button = elements.urls.children[0].children.find((child) => child.textContent === text);
  await button.listeners.click();
  return elements.result.textContent;
}

const seen = { first: elements.urls.text };
seen.test = await press("Test");
seen.enable = await press("Enable");
seen.last = elements.urls.text;
console.log(JSON.stringify(seen));
