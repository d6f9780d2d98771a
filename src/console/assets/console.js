// Comfort only: every page works without this script.
'use strict';

// Copy buttons, where the browser lets a page copy.
for (const button of document.querySelectorAll('[data-copy]')) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener('click', async () => {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Not copied';
    }
    setTimeout(() => { button.textContent = before; }, 1500);
  });
}

// Dialogs in the page instead of pages of their own.
for (const opener of document.querySelectorAll('[data-dialog]')) {
  const dialog = document.getElementById(opener.dataset.dialog);
  if (!dialog || !dialog.showModal) continue;
  opener.addEventListener('click', (event) => {
    event.preventDefault();
    dialog.showModal();
  });
  for (const closer of dialog.querySelectorAll('[data-close]')) {
    closer.addEventListener('click', (event) => {
      event.preventDefault();
      dialog.close();
    });
  }
}

// Domains are checked as one types; "Update domain" waits until every entry is valid.
const domains = document.querySelector('[data-check-domains]');
if (domains) {
  const update = document.querySelector('[data-update-domain]');
  const reason = document.getElementById('domains-error');
  const page = document.querySelector('[data-test-page]');
  const verdict = document.querySelector('.verdict');
  let asked = 0;
  let timer;
  const check = async () => {
    const mine = ++asked;
    const query = new URLSearchParams({ rules: domains.value });
    if (page.value.trim()) query.set('page', page.value.trim());
    let answer;
    try {
      const response = await fetch('/console/tokens/check-domains?' + query, { headers: { accept: 'application/json' } });
      if (!response.ok) return;
      answer = await response.json();
    } catch {
      return;
    }
    if (mine !== asked) return;
    const wrong = answer.wrong;
    reason.textContent = wrong.map((one) => one.entry + ': ' + one.why).join('; ');
    domains.setAttribute('aria-invalid', String(wrong.length > 0));
    update.disabled = wrong.length > 0;
    if (answer.verdict && page.value.trim()) {
      verdict.textContent = answer.verdict.text;
      verdict.className = 'verdict ' + (answer.verdict.admitted ? 'good' : 'bad');
    } else {
      verdict.textContent = '';
    }
  };
  const soon = () => {
    // What is not checked yet is not to be saved by its own button.
    update.disabled = true;
    clearTimeout(timer);
    timer = setTimeout(check, 150);
  };
  if (!domains.disabled && update && page && reason) {
    domains.addEventListener('input', soon);
    page.addEventListener('input', soon);
    if (domains.value !== domains.defaultValue || domains.getAttribute('aria-invalid') === 'true') soon();
  }
}

// What was typed and not saved is not lost by a slip.
const unsaved = document.querySelector('form[data-unsaved]');
if (unsaved) {
  let dirty = false;
  unsaved.addEventListener('input', () => { dirty = true; });
  for (const link of unsaved.querySelectorAll('a.button')) link.addEventListener('click', () => { dirty = false; });
  for (const form of document.forms) form.addEventListener('submit', () => { dirty = false; });
  addEventListener('beforeunload', (event) => { if (dirty) event.preventDefault(); });
}

// Filters act when they are chosen.
for (const field of document.querySelectorAll('form.filters select')) {
  field.addEventListener('change', () => field.form.requestSubmit());
}
