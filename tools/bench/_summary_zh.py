"""The rows of README.zh-CN.md: those of README.md, what each is of in Simplified Chinese."""

from __future__ import annotations

from _rows import Words
from _summary import README

CHINESE = Words(
    headings=("内容", "实测", "目标", "基准"),
    either=" 或 ",
    to=" 至 ",
    ran_on="{cores} 核，{machines}；除非另有说明，均为单线程。",
    again="`python {command} 名称` 重新运行一行。",
    bold="粗体未达到目标，{goals} 个数值中有 {missed} 个（[哪些](docs/results.md#goals-that-are-missed)）。",
)
GOAL_WORDS = {"as published": "与论文相同", " to ": " 至 "}
WHATS = (
    "整个演示，从零到报告；之后换一份预算",
    "`edgemeta pick`：设备、上限和 25 张图，到检查过的包，新进程；接着换一台设备",
    "从头搜索 {minutes} 分钟的准确率比它高多少个百分点（负数为更低）：glyphs；digits",
    "{nets} 个从未计时的网络，预测误差在 10 % 之内：单线程；双线程；int8；Node 下的 wasm",
    "其中落在 90 % 区间之内的比例，四者中的最小和最大",
    "只计时十次的设备上的秩相关（FBNet，FD 划分）",
    "单核每秒预测的结构数",
    "二阶 MAML 相对 `higher` 的每秒任务数：单核；双核",
    "Omniglot，5 类 1 样本，单核 {minutes} 分钟：ProtoNet；{learners} 种学习器中最好的（{best}）",
    "各学习器在 Omniglot 上未达到的目标，共 {goals} 个",
    "相同时间内元策略的前沿相对随机搜索，超体积之比",
    "在没见过的设备和数据上搜索，计时 {metapolicy_timings:.0f} 次、询问 {metapolicy_queries:.0f} 次："
    "比最好的网络低几个百分点；超出上限的次数",
    "用本机测得的时延搜索，询问 {queries} 次：比最好的网络低几个百分点；{budgets} 份预算中超出的",
    "超网与单独训练的秩相关",
    "推理相对 ExecuTorch（XNNPACK），{networks} 个网络中最差的；适应一个头（ANIL，五步）",
    "ONNX 中整个网络的一个训练步相对 torch，{networks} 个中最差的",
    "在设备上学习之后与 torch 的准确率之差，百分点，{learners} 种学习器中最大的",
    "随机时刻强行终止 {kills} 次之后：丢失、损坏、遗留或不同的",
    "{inputs:,} 个畸形文件中不属于我们的错误；它们最多占用的内存",
    "PostgreSQL 上两个进程共同搜索，相对一个进程",
)


def _goal(text: str) -> str:
    for english, chinese in GOAL_WORDS.items():
        text = text.replace(english, chinese)
    return text


README_ZH = tuple(row._replace(what=what, goal=_goal(row.goal)) for row, what in zip(README, WHATS, strict=True))
