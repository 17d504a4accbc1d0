// What a page can do beside being read: tables sort and filter, pictures enlarge. Without it all is there as well.
(() => {
  'use strict';
  const UNITS = {'µs': 1e-3, ms: 1, s: 1e3, min: 6e4, h: 3.6e6, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, k: 1e3, M: 1e6, G: 1e9};
  const NUMBER = /^(?:[^\w\d+−-]*|.*?predicted )([+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-zµA-Z]*)/;
  const REST = /^\s*(\d+) (s|min)\b/;  // of 3 min 20 s
  const FILTER_FROM = 8;
  const made = (tag, set, ...inside) => {
    const found = Object.assign(document.createElement(tag), set);
    found.append(...inside);
    return found;
  };
  const named = (tag, name, set, ...inside) => {
    const found = made(tag, set, ...inside);
    found.setAttribute('aria-label', name);
    return found;
  };

  // A cell's number in one unit, its notes left out; a text where there is none.
  const keyOf = cell => {
    const bare = cell.cloneNode(true);
    bare.querySelectorAll('small').forEach(note => note.remove());
    const text = bare.textContent.trim();
    const found = /^\d{4}-\d\d/.test(text) ? null : text.match(NUMBER);  // dates sort as texts
    if (!found) return text === '–' ? '' : text.toLowerCase();
    const value = Number(found[1].replaceAll(',', '').replace('−', '-').replace(/^\+/, '')) * (UNITS[found[2]] ?? 1);
    const rest = text.slice(found[0].length).match(REST);
    return value + (rest ? Number(rest[1]) * UNITS[rest[2]] : 0);
  };
  // Numbers before texts, what is empty at the end whichever way.
  const order = (a, b, sign) => {
    if (a === '' || b === '') return (a === '') - (b === '');
    if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
    return sign * (typeof a === 'number' ? a - b : a.localeCompare(b));
  };

  // Rows of a part of a table, each with the notes below it; headings of groups stay on top.
  const unitsOf = body => {
    const units = [];
    for (const row of body.rows) {
      if (row.classList.contains('group')) continue;
      if (row.classList.contains('notes') && units.length) units.at(-1).push(row);
      else units.push([row]);
    }
    return units;
  };

  // The cell over a column, which may be a wide one.
  const cellAt = (row, column) => {
    let left = column;
    for (const cell of row.cells) {
      if (left < cell.colSpan) return cell;
      left -= cell.colSpan;
    }
    return row.cells[0];
  };

  const sortable = (table, parts) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const name = head.textContent.trim();
      const button = named('button', `Sort by ${name}`, {type: 'button', className: 'sort', textContent: '↕'});
      button.addEventListener('click', () => {
        const before = head.getAttribute('aria-sort');
        const way = before === 'ascending' ? 'descending' : before === 'descending' ? null : 'ascending';
        heads.forEach(one => {
          one.removeAttribute('aria-sort');
          one.querySelector('.sort').textContent = '↕';
        });
        if (way) head.setAttribute('aria-sort', way);
        button.textContent = {ascending: '↑', descending: '↓'}[way] ?? '↕';
        for (const [body, units] of parts) {
          const sorted = [...units];
          const sign = way === 'descending' ? -1 : 1;
          if (way) {
            const keys = new Map(units.map(unit => [unit, keyOf(cellAt(unit[0], column))]));
            sorted.sort((a, b) => order(keys.get(a), keys.get(b), sign));
          }
          body.append(...sorted.flat());
        }
      });
      head.append(' ', button);
    });
  };

  const filterable = (table, units) => {
    const count = made('output', {className: 'small'});
    const words = made('input', {type: 'search'});
    words.addEventListener('input', () => {
      const wanted = words.value.toLowerCase();
      let shown = 0;
      for (const unit of units) {
        const fits = unit.some(row => row.textContent.toLowerCase().includes(wanted));
        unit.forEach(row => { row.hidden = !fits; });
        shown += fits;
      }
      count.textContent = wanted ? `${shown} of ${units.length} rows` : '';
    });
    const label = made('label', {className: 'filter'}, `Filter: ${table.caption.textContent.trim()} `, words, ' ', count);
    (table.closest('.scroll') ?? table).before(label);
  };

  for (const table of document.querySelectorAll('table.data')) {
    if (!table.tHead || !table.caption) continue;
    const parts = [...table.tBodies].map(body => [body, unitsOf(body)]);
    const units = parts.flatMap(part => part[1]);
    if (!table.classList.contains('two') && parts.some(part => part[1].length > 1)) sortable(table, parts);
    if (units.length >= FILTER_FROM && !table.classList.contains('plain')) filterable(table, units);
  }

  // Pictures of one group enlarge to the same part of the same place, so that they can be told apart.
  const dialog = named('dialog', 'Enlarged picture', {className: 'zoom'});
  let group = [], at = 0, scale = 1;
  const picture = made('img', {}), caption = made('p', {});
  const pane = named('div', 'Picture, scrolls', {className: 'pane', tabIndex: 0});
  pane.setAttribute('role', 'group');
  const show = () => {
    picture.src = group[at].src;
    picture.alt = group[at].alt;
    caption.textContent = `${group[at].alt}, ${at + 1} of ${group.length}`;
    picture.style.width = `${scale * Math.min(pane.clientWidth, pane.clientHeight || pane.clientWidth)}px`;
  };
  const turn = by => { at = (at + by + group.length) % group.length; show(); };
  const zoom = factor => {
    const x = (pane.scrollLeft + pane.clientWidth / 2) / pane.scrollWidth;
    const y = (pane.scrollTop + pane.clientHeight / 2) / pane.scrollHeight;
    scale = Math.min(32, Math.max(1, scale * factor));
    show();
    pane.scrollTo(x * pane.scrollWidth - pane.clientWidth / 2, y * pane.scrollHeight - pane.clientHeight / 2);
  };
  const bar = made('p', {className: 'bar'});
  for (const [name, sign, act] of [['Previous picture', '←', () => turn(-1)], ['Next picture', '→', () => turn(1)],
    ['Smaller', '−', () => zoom(0.5)], ['Larger', '+', () => zoom(2)], ['Close', '✕', () => dialog.close()]]) {
    const button = named('button', name, {type: 'button', textContent: sign});
    button.addEventListener('click', act);
    bar.append(button);
  }
  dialog.addEventListener('close', () => pane.replaceChildren());
  dialog.append(bar, pane, caption);
  dialog.addEventListener('keydown', event => {
    const act = {'+': () => zoom(2), '-': () => zoom(0.5), PageUp: () => turn(-1), PageDown: () => turn(1)}[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  document.body.append(dialog);
  for (const pictures of document.querySelectorAll('.pictures')) {
    const all = [...pictures.querySelectorAll('img')];
    all.forEach((one, number) => {
      const button = made('button', {type: 'button', className: 'enlarge', title: 'enlarge'});
      one.replaceWith(button);
      button.append(one);
      button.addEventListener('click', () => {
        [group, at, scale] = [all, number, 1];
        pane.replaceChildren(picture);
        dialog.showModal();
        show();
        pane.focus();
      });
    });
  }
})();
