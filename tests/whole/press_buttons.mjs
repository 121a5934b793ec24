// Opens pages of methods as a browser does, presses their button, and writes as JSON what they then show.
// Arguments: the Authorization that the browser sends, then the pages' URLs.
import vm from "node:vm";

const [authorization, ...urls] = process.argv.slice(2);

function get(url) {
  return fetch(url, { headers: { Authorization: authorization } });
}

function unescape(text) {
  const names = { lt: "<", gt: ">", amp: "&", quot: '"', "#34": '"', "#39": "'" };
  return text.replace(/&([a-z]+|#\d+);/g, (all, name) => names[name] ?? all);
}

async function press(url) {
  const page = await (await get(url)).text();
  const action = unescape(/<form id="try" method="post" action="([^"]*)"/.exec(page)[1]);
  const request = unescape(/<textarea id="request" name="request"[^>]*>\n([^]*?)<\/textarea>/.exec(page)[1]);
  const script = await (await get(new URL(/<script src="([^"]*)" defer>/.exec(page)[1], url))).text();

  const elements = {};
  const button = { disabled: false };
  let submit;
  for (const id of ["answer", "status", "body"]) elements[id] = { hidden: page.includes(`id="${id}"`), textContent: "" };
  elements.try = {
    action: new URL(action, url).href,
    querySelector: () => button,
    addEventListener: (_, listener) => (submit = listener),
  };
  const context = vm.createContext({
    document: { getElementById: (id) => elements[id] },
    FormData: class {
      constructor(form) {
        if (form !== elements.try) throw new TypeError("not the page's form");
      }
      *[Symbol.iterator]() {
        yield ["request", request];
      }
    },
    URLSearchParams,
    fetch: (to, options) =>
      fetch(to, {
        ...options,
        headers: { Authorization: authorization, Origin: new URL(url).origin, "Sec-Fetch-Site": "same-origin" },
      }),
  });
  vm.runInContext(script, context);
  let prevented = false;
  await submit({ preventDefault: () => (prevented = true) });
  return {
    status: elements.status.textContent,
    body: elements.body.textContent,
    shown: !elements.answer.hidden,
    prevented,
    usable: !button.disabled,
  };
}

const seen = {};
for (const url of urls) seen[new URL(url).pathname.split("/").pop()] = await press(url);
console.log(JSON.stringify(seen));
