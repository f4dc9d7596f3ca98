// Sends what a form says, and shows the answer as text. The token stays in its input.
"use strict";

const prefix = document.body.dataset.prefix;
const token = document.getElementById("token-text");

const filled = (form, where) => [...form.querySelectorAll(`[data-in="${where}"]`)].filter((field) => field.value !== "");

function addressOf(form) {
  let path = form.dataset.path;
  for (const field of form.querySelectorAll('[data-in="path"]')) {
    path = path.replace(`{${field.dataset.name}}`, encodeURIComponent(field.value));
  }
  const query = new URLSearchParams(filled(form, "query").map((field) => [field.dataset.name, field.value]));
  return prefix + path + (query.size ? `?${query}` : "");
}

function requestOf(form) {
  const headers = new Headers(filled(form, "header").map((field) => [field.dataset.name, field.value]));
  if (token.value) headers.set("Authorization", `Bearer ${token.value}`);
  const body = form.querySelector('[data-in="body"]');
  if (body) headers.set("Content-Type", "application/json");
  return { method: form.dataset.method, headers, body: body ? body.value : undefined };
}

async function answerTo(form) {
  const response = await fetch(addressOf(form), requestOf(form));
  const lines = [`${response.status} ${response.statusText}`];
  for (const [name, value] of response.headers) lines.push(`${name}: ${value}`);
  const text = await response.text();
  try {
    return [...lines, "", JSON.stringify(JSON.parse(text), null, 2)].join("\n");
  } catch {
    return [...lines, "", text].join("\n");
  }
}

async function send(event) {
  event.preventDefault();
  const shown = event.target.querySelector(".answer");
  shown.hidden = false;
  shown.textContent = "…";
  try {
    shown.textContent = await answerTo(event.target);
  } catch (error) {
    shown.textContent = `no answer: ${error.message}`;
  }
}

function openTarget() {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found instanceof HTMLDetailsElement) found.open = true;
}

document.getElementById("token").hidden = false;
for (const form of document.querySelectorAll("form.try")) {
  form.querySelector("button").hidden = false;
  form.addEventListener("submit", send);
}
addEventListener("hashchange", openTarget);
openTarget();
