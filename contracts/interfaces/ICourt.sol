// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Case, CourtRules, Evidence, Juror, Proof, Seat, Verdict} from "./../types/Cases.sol";
import {Offer, Receipt} from "./../types/Messages.sol";
import {IEscrow} from "./IEscrow.sol";
import {INodeRegistry} from "./INodeRegistry.sol";

/// @title Where receipts are disputed
/// @notice Three lanes. *Signature proofs* are decided at once: two receipts for one order, or a receipt above its
/// price. *Demands*: a node that claims for work must hand the response in, sealed to the buyer, or go unpaid.
/// *Judgement*: jurors drawn by stake re-check the work, commit to a verdict and reveal it; every case ends, whatever
/// anybody does or leaves undone. Amounts are atoms of the escrow's token. A case's id is the digest of its receipt, so
/// that a receipt is judged once.
/// A penalty is at most ten times the job (a signature proof: that and the minimum stake); the buyer gets at most twice
/// the job of it, less what is held back or struck with it, and never more than half, so that nobody gains by punishing
/// an accomplice. The rest pays the jurors or is burned.
/// @dev Assumes:
/// safety: a majority of the drawn seats is honest. The draw is seeded with the hash of the block after the challenge
/// and looks at the pool as it was before that block: whoever makes the block can throw it away at the price of its
/// reward, and so try again; nobody else can steer it. Jurors who come, leave or stake once the seed is known can only
/// lose seats by it. Seeds older than 256 blocks are drawn anew, so whoever could keep everybody from drawing for so
/// long could choose among seeds; one call by anybody in that time prevents it. Stake above `fullWeight` draws no
/// better.
/// liveness: somebody calls `advance` when a phase ends; each step is open to all and pays nobody.
interface ICourt {
    // ------------------------------------------------------------------------------------------------ events

    /// @notice Two signatures proved a fault.
    /// @param orderHash Order it is about.
    /// @param owner Provider that lost stake.
    /// @param buyer Gets the award by `payAward`.
    /// @param slashed Atoms lost.
    /// @param award Atoms awarded.
    event FaultProven(
        bytes32 indexed orderHash, address indexed owner, address indexed buyer, uint128 slashed, uint128 award
    );

    /// @notice A proof's award was paid out, or added to the balance of a buyer that is a contract.
    /// @param orderHash Order.
    /// @param buyer Whose it is.
    /// @param amount Atoms.
    event AwardPaid(bytes32 indexed orderHash, address indexed buyer, uint128 amount);

    /// @notice A case opened, or opened again for judgement after an answer.
    /// @param caseId Digest of the receipt.
    /// @param challenger Who put the bond up.
    /// @param owner Provider accused.
    /// @param isJudgement Whether jurors decide; otherwise the node has to hand the response in.
    /// @param amount Atoms of the receipt.
    /// @param held Atoms held back in the escrow.
    /// @param evidenceHash keccak-256 of the sealed evidence; 0 in a demand.
    event CaseOpened(
        bytes32 indexed caseId,
        address indexed challenger,
        address indexed owner,
        bool isJudgement,
        uint128 amount,
        uint128 held,
        bytes32 evidenceHash
    );

    /// @notice The node handed a response in.
    /// @param caseId Case.
    /// @param response Sealed to the order's reply key.
    event Answered(bytes32 indexed caseId, bytes response);

    /// @notice The node put a demand before jurors, because the response does not fit into a call.
    /// @param caseId Case.
    /// @param evidenceHash keccak-256 of the sealed evidence.
    event Referred(bytes32 indexed caseId, bytes32 evidenceHash);

    /// @notice Jurors will be drawn with the hash of a block to come.
    /// @param caseId Case.
    /// @param round From 1.
    /// @param seedBlock That block.
    event SeedSet(bytes32 indexed caseId, uint8 round, uint64 seedBlock);

    /// @notice A juror has a seat, and a deposit behind it.
    /// @param caseId Case.
    /// @param juror Who.
    /// @param seat From 0.
    event JurorSeated(bytes32 indexed caseId, address indexed juror, uint8 seat);

    /// @notice A juror handed a sealed verdict in.
    /// @param caseId Case.
    /// @param juror Who.
    event Committed(bytes32 indexed caseId, address indexed juror);

    /// @notice A juror opened a verdict.
    /// @param caseId Case.
    /// @param juror Who.
    /// @param verdict What it says.
    event Revealed(bytes32 indexed caseId, address indexed juror, Verdict verdict);

    /// @notice A juror left a seat.
    /// @param caseId Case.
    /// @param juror Who.
    /// @param lost Atoms of the deposit that are burned.
    /// @param fee Atoms earned.
    event JurorReleased(bytes32 indexed caseId, address indexed juror, uint128 lost, uint128 fee);

    /// @notice Ended against the node.
    /// @param caseId Case.
    /// @param refunded Atoms that were held and are the buyer's again.
    /// @param slashed Atoms of stake lost.
    /// @param award Atoms of these for the buyer.
    event CaseUpheld(bytes32 indexed caseId, uint128 refunded, uint128 slashed, uint128 award);

    /// @notice Ended for the node. When a stranger had challenged and showed nothing, buyer or key can challenge again.
    /// @param caseId Case.
    event CaseDismissed(bytes32 indexed caseId);

    /// @notice Ended without a verdict: what was held is the buyer's again, the bond goes back.
    /// @param caseId Case.
    event CaseVoid(bytes32 indexed caseId);

    /// @notice A juror's balance grew from its wallet, or it joined the pool.
    /// @param juror Who.
    /// @param amount Atoms.
    event Enrolled(address indexed juror, uint128 amount);

    /// @notice A juror draws no more seats.
    /// @param juror Who.
    event Resigned(address indexed juror);

    /// @notice Money left the court.
    /// @param who Whose it was, and who received it.
    /// @param amount Atoms.
    event BalanceWithdrawn(address indexed who, uint128 amount);

    // ------------------------------------------------------------------------------------------------ errors

    /// @notice The windows or amounts do not fit together, or the escrow and registry name another court.
    error Court_WrongRules(uint256 got, uint256 limit);
    /// @notice The session does not exist.
    error Court_UnknownSession(bytes32 sessionId);
    /// @notice The order is of another session, the receipt of another order, or the offer of neither.
    error Court_WrongReference(bytes32 got, bytes32 limit);
    /// @notice Signed by `got` (0: malformed or high `s`) instead of `limit`.
    error Court_WrongSigner(address got, address limit);
    /// @notice The receipts are the same.
    error Court_SameReceipt(bytes32 receiptHash);
    /// @notice The receipt charges no more than it may.
    error Court_NotAbovePrice(uint256 got, uint256 limit);
    /// @notice The order was proven against before, and no claim is named.
    error Court_AlreadyProven(bytes32 orderHash);
    /// @notice The work could be disputed until `limit`.
    error Court_TooLate(uint256 got, uint256 limit);
    /// @notice A free job costs nothing and is not judged.
    error Court_FreeJob(bytes32 receiptHash);
    /// @notice No voucher and no claim billed this order yet.
    error Court_NotBilled(uint32 got, uint32 limit);
    /// @notice Only the buyer or the session's key may demand a response, or have a claimed or answered job judged.
    error Court_NotBuyer(address got);
    /// @notice Only the owner or the settler of the node may answer.
    error Court_NotNode(address got);
    /// @notice The case is in another state.
    error Court_WrongState(bytes32 caseId);
    /// @notice A response has 1 to `limit` bytes; longer ones go before jurors.
    error Court_WrongLength(uint256 got, uint256 limit);
    /// @notice The caller has no seat, or it did this before.
    error Court_NoSeat(address got);
    /// @notice The verdict is none, or not the one that was committed to.
    error Court_WrongVerdict(bytes32 got, bytes32 limit);
    /// @notice Only a provider with the minimum stake can be a juror.
    error Court_NotStaked(address got);
    /// @notice The juror's stake and balance suffice.
    error Court_StillEligible(address got);
    /// @notice More than is there and stands behind no seat.
    error Court_AboveBalance(uint256 got, uint256 limit);
    /// @notice Moving nothing is a mistake.
    error Court_ZeroAmount();
    /// @notice The token moved `got` atoms instead of `limit`: it is not a plain ERC-20.
    error Court_WrongDelta(uint256 got, uint256 limit);

    // ------------------------------------------------------------------------------------------ signature proofs

    /// @notice Proves that a node signed two receipts for one order. Anyone may call, until `expiresAt` + grace +
    /// challenge. The first receipt is struck from a claim that is named with it, also when somebody proved the fault
    /// before and named none. It costs ten times the order's maximum and the minimum stake, once an order; the buyer
    /// gets twice that maximum of it, less what is struck, and half of it at most.
    /// @param first Evidence with one of them.
    /// @param second The other.
    /// @param signature Of the other.
    function proveTwoReceipts(Evidence calldata first, Receipt calldata second, bytes calldata signature) external;

    /// @notice Proves that a receipt charges more than its offer's price, its order's maximum, or anything at all past
    /// its deadline. As `proveTwoReceipts`.
    /// @param evidence The receipt.
    /// @param offer The offer that the order names.
    function proveOvercharge(Evidence calldata evidence, Offer calldata offer) external;

    /// @notice Sends a proof's award to the buyer; adds it to the buyer's balance here if that is a contract. Anyone
    /// may call; without an award nothing happens.
    /// @param orderHash Order that was proven against.
    function payAward(bytes32 orderHash) external;

    // ------------------------------------------------------------------------------------------------- cases

    /// @notice Demands the response of a job that a pending claim bills. Buyer or key only; takes the bond.
    /// @param evidence The job.
    /// @return caseId Digest of the receipt.
    function demand(Evidence calldata evidence) external returns (bytes32 caseId);

    /// @notice Hands a demanded response in. Owner or settler of the node only, in the answer window. The bond goes
    /// back; what is held is paid after the challenge window, unless the response is judged.
    /// @param caseId Case.
    /// @param response Sealed to the order's reply key, 1 byte to 24 KiB.
    function answer(bytes32 caseId, bytes calldata response) external;

    /// @notice Puts a demand before jurors. As `answer`; when they clear the node, the bond pays them, and what is left
    /// of it goes back.
    /// @param caseId Case.
    /// @param evidenceHash keccak-256 of the sealed evidence that the node gives to each juror.
    function refer(bytes32 caseId, bytes32 evidenceHash) external;

    /// @notice Opens a judgement of a job that is claimed or was answered for, by its buyer or key, or of one that was
    /// paid, by anyone; takes the bond. A receipt is judged once: while the buyer's money hangs on it, nobody else can
    /// have it judged on evidence that is never shown; of a paid job, a stranger who showed nothing, or whose case
    /// ended without a verdict, leaves the buyer's side its own challenge while the job can be disputed. Jurors take
    /// evidence from the buyer's side too.
    /// @param evidence The job.
    /// @param evidenceHash keccak-256 of the sealed evidence that the challenger gives to each juror.
    /// @return caseId Digest of the receipt.
    function challenge(Evidence calldata evidence, bytes32 evidenceHash) external returns (bytes32 caseId);

    /// @notice Moves a case on as far as time allows: draws jurors, replaces silent ones, counts, ends. Anyone may
    /// call, as often as they like; when nothing is due nothing happens.
    /// @param caseId Case.
    function advance(bytes32 caseId) external;

    /// @notice Hands a sealed verdict in. Seated jurors only, once.
    /// @param caseId Case.
    /// @param commitment From `commitmentOf`.
    function commit(bytes32 caseId, bytes32 commitment) external;

    /// @notice Opens a verdict. Seated jurors only, once.
    /// @param caseId Case.
    /// @param verdict As committed.
    /// @param salt As committed.
    function reveal(bytes32 caseId, Verdict verdict, bytes32 salt) external;

    // ------------------------------------------------------------------------------------------------- money

    /// @notice Joins the pool of jurors, or adds to the balance. Providers with the minimum stake only; needs an
    /// allowance. The present stake becomes the juror's weight; draws whose seed block is fixed by now pass it over, as
    /// do those that find less than a whole deposit free or less stake than that weight.
    /// @param amount Atoms; 0 only joins again, or tells a new stake.
    function enrol(uint64 amount) external;

    /// @notice Leaves the pool. Seats stay until their cases end.
    function resign() external;

    /// @notice Takes a juror out of the pool whose balance is below a deposit, or whose stake is below what it enrolled
    /// with. Anyone may call, so that nobody can fill the pool with the ineligible, or enrol with borrowed stake.
    /// @param juror Any address.
    function expel(address juror) external;

    /// @notice Sends the caller its balance less what stands behind seats: bonds that came back, fees, awards.
    /// @param amount Atoms, more than 0.
    function withdraw(uint64 amount) external;

    // ------------------------------------------------------------------------------------------------- views

    /// @notice A case.
    /// @param caseId Digest of the receipt.
    /// @return All zero when there is none.
    function caseOf(bytes32 caseId) external view returns (Case memory);

    /// @notice The seats of a case, in its present round.
    /// @param caseId Case.
    /// @return Three.
    function seatsOf(bytes32 caseId) external view returns (Seat[3] memory);

    /// @notice Money and place of anyone who has any here.
    /// @param who Any address.
    /// @return All zero for a stranger.
    function jurorOf(address who) external view returns (Juror memory);

    /// @notice What was proven about an order.
    /// @param orderHash Digest of the order.
    /// @return All zero when nothing was.
    function proofOf(bytes32 orderHash) external view returns (Proof memory);

    /// @notice Jurors in the pool.
    /// @return How many.
    function jurorCount() external view returns (uint256);

    /// @notice What a juror commits to.
    /// @param caseId Case.
    /// @param juror Who; part of it, so that nobody can hand in a copy.
    /// @param verdict Not `None`.
    /// @param salt Secret until it is revealed.
    /// @return keccak-256 of all of these and the case's round.
    function commitmentOf(bytes32 caseId, address juror, Verdict verdict, bytes32 salt) external view returns (bytes32);

    /// @notice Amounts and windows.
    /// @return As it was built.
    function rules() external view returns (CourtRules memory);

    /// @notice Longest time from the end of a session's grace to the last decision about its jobs.
    /// @return Seconds.
    function LONGEST_SECONDS() external view returns (uint256);

    /// @notice Deposits that jurors lost; nothing can move them.
    /// @return Atoms.
    function burned() external view returns (uint128);

    /// @notice Escrow whose receipts are disputed.
    /// @return Escrow.
    function ESCROW() external view returns (IEscrow);

    /// @notice Registry whose providers are punished, and are jurors.
    /// @return Node registry.
    function REGISTRY() external view returns (INodeRegistry);
}
