// A generator in the reader's browser, and the controls that move its latent. Used by the docs site and by `disentangle explore`.
// explorer.mount(element, told), with what `explorer_data` in chapter 08 writes: told.controls, a list of {label, values} with a button for each value, or
// with a slider for none; told.models, a list of {label, model, moves}, where moves says for each control which variable it moves, and how.
const explorer = (() => {
    // --- the generator

    const half = h => (h >> 15 ? -1 : 1)*((h >> 10 & 31) ? 2**((h >> 10 & 31) - 15)*(1 + (h & 1023)/1024) : (h & 1023)*2**-24);

    function decoded(model) {       // its weights, from base64 of 16-bit floats
        if (model.w) return model;
        const bytes = Uint8Array.from(atob(model.weights), c => c.charCodeAt(0));
        model.w = Float32Array.from(new Uint16Array(bytes.buffer), half);
        return model;
    }

    function linear(x, [n, m], w, b) {
        const y = Float32Array.from(b);
        for (let o = 0; o < m; o++) { let sum = 0; for (let i = 0; i < n; i++) sum += x[i]*w[o*n + i]; y[o] += sum; }
        return y;
    }

    function deconvolution(x, [cin, cout, size, k, stride, pad], w, b) {
        const out = (size - 1)*stride - 2*pad + k, n = cout*k*k, y = new Float32Array(cout*out*out), patch = new Float32Array(n);
        for (let c = 0; c < cout; c++) y.fill(b[c], c*out*out, (c + 1)*out*out);
        for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
            patch.fill(0);
            for (let c = 0; c < cin; c++) {
                const v = x[(c*size + i)*size + j];
                if (v) for (let t = 0, at = c*n; t < n; t++, at++) patch[t] += v*w[at];
            }
            for (let c = 0, t = 0; c < cout; c++) for (let p = 0; p < k; p++) for (let q = 0; q < k; q++, t++) {
                const row = i*stride - pad + p, column = j*stride - pad + q;
                if (row >= 0 && row < out && column >= 0 && column < out) y[(c*out + row)*out + column] += patch[t];
            }
        }
        return y;
    }

    const weighted = {linear: [linear, ([n, m]) => [n*m, m]], deconvolution: [deconvolution, ([a, b, , k]) => [a*b*k*k, b]]};
    const pointwise = {relu: v => Math.max(v, 0), tanh: Math.tanh};

    function generate(model, latent) {      // numbers in the order of the generator's input -> C*H*W pixels in [-1, 1]
        let x = Float32Array.from(latent), at = 0;
        for (const [kind, ...args] of decoded(model).layers) {
            if (pointwise[kind]) { x = x.map(pointwise[kind]); continue; }
            const [f, sizes] = weighted[kind], [nw, nb] = sizes(args);
            x = f(x, args, model.w.subarray(at, at + nw), model.w.subarray(at + nw, at + nw + nb));
            at += nw + nb;
        }
        return x;
    }

    // --- latents

    function normal(seed) {         // standard normal numbers from a seed: mulberry32, Box and Muller
        const uniform = () => {
            seed = seed + 0x6D2B79F5 | 0;
            let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
            t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
            return ((t ^ t >>> 14) >>> 0)/2**32;
        };
        return () => Math.sqrt(-2*Math.log(1 - uniform()))*Math.cos(2*Math.PI*uniform());
    }

    function latent(model, values, seed) {      // values: variable -> number or category; other noise from the seed, other codes 0
        const draw = normal(seed), z = Array.from({length: model.noise}, (_, i) => { const drawn = draw(); return values[`z${i}`] ?? drawn; });
        return model.codes.reduce((all, [name, n]) => all.concat(n ? Array.from({length: n}, (_, i) => +(i === (values[name] ?? 0))) : values[name] ?? 0), z);
    }

    // --- the page

    function paint(canvas, model, pixels) {
        const [channels, h, w] = model.shape, image = new ImageData(w, h);
        for (let i = 0; i < h*w; i++) {
            for (let c = 0; c < 3; c++) image.data[4*i + c] = Math.round(127.5*(pixels[(channels === 3 ? c : 0)*h*w + i] + 1));
            image.data[4*i + 3] = 255;
        }
        canvas.getContext('2d').putImageData(image, 0, 0);
    }

    function element(tag, attributes = {}, ...children) {
        const e = Object.assign(document.createElement(tag), attributes);
        e.append(...children);
        return e;
    }

    const style = `.explorer-controls {display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .4rem 1.5rem; align-items: end}
        .explorer-controls label {display: block; font-size: .9rem} .explorer-controls input[type=range] {width: 100%; display: block; margin: .2rem 0}
        .explorer-controls fieldset {border: 0; padding: 0; margin: 0; min-width: 0; grid-column: 1 / -1} .explorer-controls legend {font-size: .9rem; padding: 0; margin: 0; float: none; width: auto}
        .explorer-controls button {font: inherit; font-size: .9rem; padding: .15rem .55rem; margin: .1rem .15rem .1rem 0; border: 1px solid #8888; border-radius: .3rem; background: none; color: inherit; cursor: pointer}
        .explorer-controls button[aria-pressed=true] {background: #2a64c8; border-color: #2a64c8; color: #fff}
        .explorer-views {display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1rem} .explorer-views figure {margin: 0; flex: 1 1 9rem; max-width: 19rem}
        .explorer-views figcaption {font-size: .9rem; min-height: 1.5em} .explorer-views canvas {width: 100%; display: block; image-rendering: pixelated; background: #8882}
        .explorer-others {display: grid; grid-template-columns: repeat(3, 1fr); gap: 2px; margin-top: 2px; align-content: start}
        .explorer-views figure:only-child {max-width: 38rem; display: grid; grid-template-columns: 1fr 1fr; column-gap: 2px}
        .explorer-views figure:only-child figcaption {grid-column: 1 / -1} .explorer-views figure:only-child .explorer-others {margin-top: 0}
        @media (max-width: 40rem) {     /* a phone: pictures first, and in sight while a slider moves */
            .explorer {display: flex; flex-direction: column}
            .explorer-views {order: -1; position: sticky; top: var(--explorer-top, 0); z-index: 1; flex-wrap: nowrap; gap: .4rem; margin: 0; padding: .4rem 0; background: var(--bs-body-bg, Canvas)}
            .explorer-views figure {flex: 1 1 0; min-width: 0} .explorer-views figure:not(:only-child) .explorer-others {display: none}
        }`;

    function mount(root, told, others = 9) {
        if (!document.getElementById('explorer-style')) document.head.append(element('style', {id: 'explorer-style', textContent: style}));
        const controls = element('div', {className: 'explorer-controls'}), views = element('div', {className: 'explorer-views'}), at = told.controls.map(() => 0);
        let seed = 0, jobs = [];
        told.controls.forEach((c, k) => {
            if (c.values) {
                const buttons = c.values.map(v => element('button', {type: 'button', textContent: v}));
                const press = i => { at[k] = i; buttons.forEach((b, j) => b.setAttribute('aria-pressed', i === j)); };
                buttons.forEach((b, i) => b.onclick = () => { press(i); draw(); });
                press(0);
                controls.append(element('fieldset', {}, element('legend', {textContent: c.label}), ...buttons));
            } else {
                const slider = element('input', {type: 'range', min: -1, max: 1, step: .02, value: 0});
                slider.oninput = () => { at[k] = +slider.value; draw(); };
                controls.append(element('label', {}, c.label, slider));
            }
        });
        const renew = element('button', {type: 'button', textContent: 'new noise'});
        renew.onclick = () => { seed += 1 + others; draw(); };
        controls.append(element('div', {}, renew));

        const shown = told.models.map(({label, model, moves}) => {
            const [, h, w] = model.shape, canvases = Array.from({length: 1 + others}, () => element('canvas', {width: w, height: h}));
            canvases[0].setAttribute('role', 'img');
            canvases[0].setAttribute('aria-label', `what ${label} makes of this latent`);
            const rest = element('div', {className: 'explorer-others'}, ...canvases.slice(1));
            rest.setAttribute('aria-hidden', true);
            views.append(element('figure', {}, element('figcaption', {textContent: label}), canvases[0], rest));
            const values = () => Object.fromEntries(moves.map(([name, how], k) => [name, Array.isArray(how) ? how[at[k]] : how*at[k]]));
            return {model, canvases, values, drawn: []};
        });

        function draw() {           // at once what is large, then the others, as long as nothing is moved
            const make = (i, {model, canvases, drawn, values}) => () => {
                drawn[i] = latent(model, values(), seed + i);
                paint(canvases[i], model, generate(model, drawn[i]));
            };
            const idle = !jobs.length;
            jobs = Array.from({length: 1 + others}, (_, i) => shown.map(s => make(i, s))).flat();
            if (idle) requestAnimationFrame(work);
        }
        function work() {
            const until = performance.now() + 25;
            try { do jobs.shift()(); while (jobs.length && performance.now() < until); }
            catch (e) { jobs = []; throw e; }
            if (jobs.length) requestAnimationFrame(work);
        }
        root.classList.add('explorer');
        root.replaceChildren(controls, views);
        draw();
        return root.explorer = {shown, get busy() { return jobs.length > 0; }};
    }

    return {generate, latent, mount};
})();
