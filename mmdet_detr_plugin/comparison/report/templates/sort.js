'use strict';
// Tables sort on a click in their header, or on Enter or Space there; what is missing ("-") stays last.
(() => {
  const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(\s*±\s*[\d.]+)?(\s?(%|[^\s\d]{1,4}))?$/;

  const text = (row, column) => row.cells[column].textContent.trim().replace(/\s+/g, ' ').replace(/−/g, '-');
  const missing = (value) => value === '' || value === '-';

  function sort(table, column, direction) {
    const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, value: text(row, column) }));
    const numeric = rows.every(({ value }) => missing(value) || NUMBER.test(value));
    const compare = numeric
      ? (a, b) => parseFloat(a) - parseFloat(b)
      : (a, b) => a.localeCompare(b, 'en', { numeric: true, sensitivity: 'base' });
    rows.sort((a, b) => {
      if (missing(a.value) || missing(b.value)) return missing(a.value) - missing(b.value);
      return direction * compare(a.value, b.value);
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }

  for (const table of document.querySelectorAll('table')) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = head.querySelector('button');
      if (!button) return;
      button.addEventListener('click', () => {
        const ascending = head.getAttribute('aria-sort') !== 'ascending';
        heads.forEach((other) => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
        sort(table, column, ascending ? 1 : -1);
      });
    });
  }
})();
