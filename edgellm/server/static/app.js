"use strict";
// Text goes into the page as text only: nothing that a model says can become markup.
const $ = (id) => document.getElementById(id);
const messages = [];
let running = null;

function headers() {
  const found = { "Content-Type": "application/json" };
  if ($("token").value) found.Authorization = "Bearer " + $("token").value;
  return found;
}

function show(role, text) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = text;
  $("messages").append(item);
  item.scrollIntoView({ block: "end" });
  return item;
}

async function failure(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return response.status + " " + response.statusText;
  }
}

// The events of a stream, whose lines may be cut anywhere.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      yield JSON.parse(line.slice(6));
    }
  }
}

async function answer() {
  running = new AbortController();
  $("send").disabled = true;
  $("stop").disabled = false;
  const item = show("assistant", "");
  const started = performance.now();
  let text = "", first = 0, usage = null;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: headers(),
      signal: running.signal,
      body: JSON.stringify({
        model: $("model").value,
        messages,
        stream: true,
        stream_options: { include_usage: true },
        temperature: Number($("temperature").value) || 0,
      }),
    });
    if (!response.ok) throw new Error(await failure(response));
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage || usage;
      for (const choice of event.choices) {
        if (choice.delta.content) {
          first = first || performance.now();
          text += choice.delta.content;
          item.textContent = text;
        }
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      item.className = "error";
      item.textContent = text + (text ? "\n" : "") + error.message;
    }
  }
  if (text) messages.push({ role: "assistant", content: text });
  if (usage && first) {
    const seconds = (performance.now() - first) / 1000;
    const speed = usage.completion_tokens > 1 ? (usage.completion_tokens - 1) / seconds : 0;
    $("status").textContent = `${usage.prompt_tokens} + ${usage.completion_tokens} tokens, first after ` +
      `${(first - started).toFixed(0)} ms, ${speed.toFixed(1)} tokens/s`;
  }
  running = null;
  $("send").disabled = false;
  $("stop").disabled = true;
  $("text").focus();
  figures();
}

async function models() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) {
    $("status").textContent = await failure(response);
    return;
  }
  const chosen = $("model").value;
  $("model").replaceChildren(...(await response.json()).data.map((one) => new Option(one.id, one.id)));
  if (chosen) $("model").value = chosen;
  $("status").textContent = "";
}

async function figures() {
  let text;
  try {
    const response = await fetch("/metrics", { headers: headers() });
    if (!response.ok) return;
    text = await response.text();
  } catch {
    return;
  }
  const sums = {};
  for (const line of text.split("\n")) {
    const found = /^([a-z_]+)(\{[^}]*\})? ([-+.\deE]+)$/.exec(line);
    if (!found) continue;
    const kind = /kind="(\w+)"/.exec(found[2] || "");
    const name = found[1] + (kind ? " " + kind[1] : "");
    sums[name] = (sums[name] || 0) + Number(found[3]);
  }
  const mean = (name) => sums[name + "_count"]
    ? ((1000 * sums[name + "_sum"]) / sums[name + "_count"]).toFixed(1) + " ms" : "-";
  const rows = [
    ["Texts", sums["edgellm_texts"]],
    ["Waiting", sums["edgellm_waiting"]],
    ["Models loaded", sums["edgellm_models_loaded"]],
    ["Prompt tokens", sums["edgellm_tokens_total prompt"]],
    ["of these cached", sums["edgellm_tokens_total cached"]],
    ["Generated tokens", sums["edgellm_tokens_total generated"]],
    ["Accepted drafts", sums["edgellm_tokens_total accepted"]],
    ["First token, mean", mean("edgellm_time_to_first_token_seconds")],
    ["Between tokens", mean("edgellm_inter_token_seconds")],
    ["Read bandwidth used", sums["edgellm_read_bytes_per_second"] && sums["edgellm_read_peak_bytes_per_second"]
      ? ((100 * sums["edgellm_read_bytes_per_second"]) / sums["edgellm_read_peak_bytes_per_second"]).toFixed(0) + " %" : "-"],
    ["KV in use", ((sums["edgellm_kv_bytes used"] || 0) / 2 ** 20).toFixed(1) + " MiB"],
  ];
  $("figures").replaceChildren(...rows.flatMap(([name, value]) => {
    const term = document.createElement("dt"), told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    return [term, told];
  }));
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || running) return;
  $("text").value = "";
  messages.push({ role: "user", content: text });
  show("user", text);
  answer();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running && running.abort());
$("clear").addEventListener("click", () => {
  if (running) running.abort();
  messages.length = 0;
  $("messages").replaceChildren();
});
$("token").addEventListener("change", models);
models();
figures();
setInterval(figures, 2000);
